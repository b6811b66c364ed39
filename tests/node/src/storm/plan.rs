//! What one call of a storm is to be: drawn by chance, but the same for the same seed.

use bytes::{BufMut as _, Bytes, BytesMut};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Padding beyond what a socket's buffer and a connection's first window hold.
const LARGE_BYTES: std::ops::Range<u32> = 33_000..160_000;
const SMALL_BYTES: std::ops::Range<u32> = 0..600;
/// A deadline that no answer keeps.
pub(super) const TIMEOUT_MS: u64 = 20;
/// Field for padding: no message of the CRI has one with this number.
const PADDING_FIELD: u32 = 200;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// `package.Service/Method`.
    pub method: &'static str,
    pub traceparent: String,
    pub subject: Subject,
    /// Added to the request.
    pub padding_bytes: u32,
    pub answer: Answer,
    pub ending: Ending,
}

/// Whom the call concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    None,
    Sandbox(String),
    Container(String),
    /// A new sandbox of this pod (uid), answered with this id.
    NewSandbox {
        pod_uid: String,
        id: String,
    },
}

/// What the server is to do; the client tells it in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// So many messages, each with so much padding, the first with this id as field 1.
    Messages { count: u32, padding_bytes: u32, id: Option<String> },
    /// An error, in trailers only or after response headers.
    Error { code: u8, after_headers: bool },
    /// RST_STREAM with this error code (RFC 9113 §7).
    Reset { reason: u32, after_headers: bool },
    /// Response headers, perhaps a message, then nothing.
    Silence { message: bool },
}

/// How the client ends the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It waits for the answer's end.
    Waits,
    /// It cancels when it has seen that the server began to answer.
    Cancels,
    /// Its deadline passes, so it cancels.
    Expires,
    /// It cancels before the request is complete.
    CancelsHalfSent,
}

const SANDBOX_METHODS: [&str; 3] = ["StopPodSandbox", "RemovePodSandbox", "PodSandboxStatus"];
const CONTAINER_METHODS: [&str; 4] = ["StartContainer", "StopContainer", "ContainerStatus", "ExecSync"];
const OTHER_METHODS: [&str; 4] = ["Version", "Status", "ListContainers", "ListPodSandbox"];
const RESET_REASONS: [u32; 4] = [
    2,  // INTERNAL_ERROR
    7,  // REFUSED_STREAM
    8,  // CANCEL
    11, // ENHANCE_YOUR_CALM
];

// === impl Plan ===

impl Plan {
    /// Draws a call.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut plan = Self::unary(rng);
        let small = rng.u32(SMALL_BYTES);
        let large = rng.u32(LARGE_BYTES);
        let error = Answer::Error { code: rng.u8(1..17), after_headers: false };
        match rng.u32(..100) {
            0..55 => {}
            55..65 => plan.padding_bytes = large,
            65..75 => plan.pad_answer(large),
            75..80 => {
                plan.padding_bytes = large;
                plan.pad_answer(rng.u32(LARGE_BYTES));
            }
            80..86 => plan.stream(rng.u32(2..7), small),
            86..90 => plan.answer = error,
            90..92 => plan.answer = Answer::Error { code: rng.u8(1..17), after_headers: true },
            92..94 => {
                let reason = RESET_REASONS[rng.usize(..RESET_REASONS.len())];
                plan.answer = Answer::Reset { reason, after_headers: rng.bool() };
            }
            94..97 => plan.end(Ending::Cancels, rng.bool()),
            97..98 => plan.end(Ending::Expires, false),
            _ => plan.end(Ending::CancelsHalfSent, false),
        }
        plan
    }

    /// A call that the server begins to answer and never ends.
    pub(super) fn hanging(rng: &mut Rng) -> Self {
        let mut plan = Self::unary(rng);
        plan.end(Ending::Waits, false);
        plan
    }

    /// A call that is answered at once.
    pub(super) fn unary(rng: &mut Rng) -> Self {
        let pick = |rng: &mut Rng, methods: &[&'static str]| methods[rng.usize(..methods.len())];
        let (subject, method) = match rng.u32(..4) {
            0 => (Subject::Sandbox(hex(rng, 64)), pick(rng, &SANDBOX_METHODS)),
            1 => (Subject::Container(hex(rng, 64)), pick(rng, &CONTAINER_METHODS)),
            2 => (Subject::NewSandbox { pod_uid: hex(rng, 32), id: hex(rng, 64) }, "RunPodSandbox"),
            _ => (Subject::None, pick(rng, &OTHER_METHODS)),
        };
        let id = if let Subject::NewSandbox { id, .. } = &subject { Some(id.clone()) } else { None };
        Self {
            method,
            traceparent: format!("00-{}-{}-01", hex(rng, 32), hex(rng, 16)),
            subject,
            padding_bytes: rng.u32(SMALL_BYTES),
            answer: Answer::Messages { count: 1, padding_bytes: rng.u32(SMALL_BYTES), id },
            ending: Ending::Waits,
        }
    }

    /// `package.Service/Method`.
    pub(super) fn full_method(&self) -> String {
        format!("runtime.v1.RuntimeService/{}", self.method)
    }

    /// The request's only message, behind its prefix.
    pub(super) fn request(&self, rng: &mut Rng) -> Bytes {
        let mut message = BytesMut::new();
        match &self.subject {
            Subject::None => {}
            Subject::Sandbox(id) | Subject::Container(id) => put_field(&mut message, 1, id.as_bytes()),
            Subject::NewSandbox { pod_uid, .. } => {
                let mut metadata = BytesMut::new();
                put_field(&mut metadata, 1, pod_name(pod_uid).as_bytes());
                put_field(&mut metadata, 2, pod_uid.as_bytes());
                put_field(&mut metadata, 3, b"storm");
                let mut config = BytesMut::new();
                put_field(&mut config, 1, &metadata);
                put_field(&mut message, 1, &config);
            }
        }
        put_padding(&mut message, self.padding_bytes, rng);
        framed(&message)
    }

    fn pad_answer(&mut self, bytes: u32) {
        if let Answer::Messages { padding_bytes, .. } = &mut self.answer {
            *padding_bytes = bytes;
        }
    }

    fn stream(&mut self, messages: u32, padding: u32) {
        self.method = "GetContainerEvents";
        self.subject = Subject::None;
        self.answer = Answer::Messages { count: messages, padding_bytes: padding, id: None };
    }

    fn end(&mut self, ending: Ending, message: bool) {
        self.answer = Answer::Silence { message };
        self.ending = ending;
    }
}

/// A message of a response, behind its prefix.
pub(super) fn response(id: Option<&str>, padding_bytes: u32, rng: &mut Rng) -> Bytes {
    let mut message = BytesMut::new();
    if let Some(id) = id {
        put_field(&mut message, 1, id.as_bytes());
    }
    put_padding(&mut message, padding_bytes, rng);
    framed(&message)
}

/// The name of the pod with this uid.
pub(super) fn pod_name(uid: &str) -> String {
    format!("pod-{}", &uid[..8])
}

/// Not compressed, its length, the message (grpc `PROTOCOL-HTTP2.md`, "Length-Prefixed-Message").
fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes.freeze()
}

fn put_padding(message: &mut BytesMut, bytes: u32, rng: &mut Rng) {
    if bytes > 0 {
        let mut padding = vec![0; bytes as usize];
        rng.fill(&mut padding);
        put_field(message, PADDING_FIELD, &padding);
    }
}

/// A length-delimited protobuf field.
fn put_field(message: &mut BytesMut, number: u32, content: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, message);
    prost::encoding::encode_varint(content.len() as u64, message);
    message.put_slice(content);
}

fn hex(rng: &mut Rng, digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(rng.u32(..16), 16).expect("below the radix")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_calls_and_every_kind_of_them() {
        let draw = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..2_000).map(|_| Plan::draw(&mut rng)).collect::<Vec<_>>()
        };
        let plans = draw(7);
        assert_eq!(plans, draw(7));
        assert_ne!(plans, draw(8));
        let any = |is: fn(&Plan) -> bool| assert!(plans.iter().any(is));
        any(|plan| plan.padding_bytes > 32 << 10);
        any(|plan| matches!(plan.answer, Answer::Messages { padding_bytes, .. } if padding_bytes > 32 << 10));
        any(|plan| matches!(plan.answer, Answer::Messages { count, .. } if count > 1));
        any(|plan| matches!(plan.answer, Answer::Error { after_headers: false, .. }));
        any(|plan| matches!(plan.answer, Answer::Reset { after_headers: false, .. }));
        for ending in [Ending::Cancels, Ending::Expires, Ending::CancelsHalfSent] {
            assert!(plans.iter().any(|plan| plan.ending == ending), "{ending:?}");
        }
    }
}
