//! What the client itself knows of a call that it made: the truth that the agent's account is compared with.

use serde::{Deserialize, Serialize};

use super::plan::{Plan, Subject, pod_name};

/// A call that was on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The whole header value; it names the call.
    pub traceparent: String,
    /// `package.Service/Method`.
    pub method: String,
    /// HTTP/2 stream id.
    pub stream: u32,
    pub outcome: Outcome,
    pub sandbox_id: Option<String>,
    pub container_id: Option<String>,
    /// Name of the pod that the request names.
    pub pod: Option<String>,
    /// From before the request to after the end of the answer, nanoseconds.
    pub took_ns: u64,
}

/// How a call ended, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With this gRPC status.
    Answered(u8),
    /// The server sent RST_STREAM with this error code.
    Reset(u32),
    /// The client cancelled it.
    Cancelled,
    /// The client's deadline passed.
    Expired,
    /// It was open when its connection ended.
    Abandoned,
    /// The connection ended at an unknown point of the call: it may not have been on the wire, or answered unheard.
    Unsure,
}

// === impl Fact ===

impl Fact {
    pub(super) fn new(plan: &Plan, stream: u32, outcome: Outcome, took_ns: u64) -> Self {
        // An answer that the client did not get may have been on the wire.
        let refused = matches!(outcome, Outcome::Answered(1..));
        let (mut sandbox_id, mut container_id, mut pod) = (None, None, None);
        match &plan.subject {
            Subject::None => {}
            Subject::Sandbox(id) => sandbox_id = Some(id.clone()),
            Subject::Container(id) => container_id = Some(id.clone()),
            Subject::NewSandbox { pod_uid, id } => {
                sandbox_id = (!refused).then(|| id.clone());
                pod = Some(pod_name(pod_uid));
            }
        }
        let (traceparent, method) = (plan.traceparent.clone(), plan.full_method());
        Self { traceparent, method, stream, outcome, sandbox_id, container_id, pod, took_ns }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The status to be told; `None` where any may be.
    pub fn status(self) -> Option<u8> {
        match self {
            Self::Answered(code) => Some(code),
            Self::Cancelled => Some(1),
            Self::Expired => Some(4),
            Self::Abandoned => Some(14),
            // grpc `PROTOCOL-HTTP2.md`, "Errors"
            Self::Reset(reason) => Some(match reason {
                7 => 14,
                8 => 1,
                11 => 8,
                12 => 7,
                _ => 13,
            }),
            Self::Unsure => None,
        }
    }

    /// Whether the whole call went over the wire, so that all its phases can be told.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Answered(_))
    }
}
