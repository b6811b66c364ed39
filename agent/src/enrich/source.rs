//! Where identity comes from, and what a source can tell.

use crate::call::Traceparent;

/// A source of identity, the most trusted first: of two claims that differ, the smaller wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A request or response on the CRI socket.
    Wire,
    /// Attributes of kubelet's `syncPod` family, or of the runtime's own spans.
    Span,
    /// The runtime, asked over its socket.
    Runtime,
    /// The Kubernetes API.
    Api,
    /// Log lines that the runtime attaches to its spans.
    Event,
    /// The pod's uid in a path of a CSI call.
    Path,
    /// A DRA claim that the pod reserved.
    Claim,
    /// A volume that another call published for the pod.
    Volume,
    /// A device that was allocated to the pod.
    Device,
    /// Another span or call of the same trace.
    Trace,
}

/// What a source tells. Ids and names are borrowed: the store keeps its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<'a> {
    /// A pod exists.
    Pod(PodName<'a>),
    /// A sandbox is the pod's.
    Sandbox { id: &'a str, pod: PodName<'a> },
    /// A container is the pod's; `name` is empty if not told.
    Container { id: &'a str, name: &'a str, pod: PodName<'a> },
    /// A CSI volume is used by the pod.
    Volume { id: &'a str, pod: PodName<'a> },
    /// A DRA claim is reserved for the pod.
    Claim { uid: &'a str, pod: PodName<'a> },
    /// The same by the claim's name, which is unique in its namespace while the claim is there.
    ClaimName { namespace: &'a str, name: &'a str, pod: PodName<'a> },
    /// A device is allocated to the pod.
    Device { id: &'a str, pod: PodName<'a> },
    /// Attributes for the pod's spans (workload, labels), replacing those told before.
    Attributes { pod_uid: &'a str, attributes: &'a [(String, String)] },
    /// The span that asked for the pod, as `tracing.k8s.io/traceparent` on it says (KEP-5915).
    Cause { pod_uid: &'a str, span: Traceparent },
    /// Attributes of the node, for every resource that lacks them; replacing those told before.
    Node { attributes: &'a [(String, String)] },
    /// The pod is gone; what is known of it is kept a while for its last spans.
    Gone { pod_uid: &'a str, at_unix_nano: u64 },
}

/// A pod as a source names it; what the source does not tell is empty, but never uid and name both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodName<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
}

/// What a source that is asked or watched tells, on its way to the enricher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub source: Source,
    pub facts: Vec<OwnedFact>,
}

/// What the enricher would like to be told by a source that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// What a container is called, and whose it is.
    Container { id: String },
    /// Which pod a device was given to.
    Device { id: String },
    /// Which pod a claim is reserved for.
    Claim { namespace: String, name: String },
}

/// A [`Fact`] that owns its names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OwnedFact {
    Pod(OwnedPodName),
    Sandbox { id: String, pod: OwnedPodName },
    Container { id: String, name: String, pod: OwnedPodName },
    Volume { id: String, pod: OwnedPodName },
    Claim { uid: String, pod: OwnedPodName },
    ClaimName { namespace: String, name: String, pod: OwnedPodName },
    Device { id: String, pod: OwnedPodName },
    Attributes { pod_uid: String, attributes: Vec<(String, String)> },
    Cause { pod_uid: String, span: Traceparent },
    Node { attributes: Vec<(String, String)> },
    Gone { pod_uid: String, at_unix_nano: u64 },
}

/// A [`PodName`] that owns its strings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct OwnedPodName {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

// === impl OwnedFact ===

impl OwnedFact {
    /// The fact, borrowed.
    pub fn as_fact(&self) -> Fact<'_> {
        match self {
            Self::Pod(pod) => Fact::Pod(pod.as_name()),
            Self::Sandbox { id, pod } => Fact::Sandbox { id, pod: pod.as_name() },
            Self::Container { id, name, pod } => Fact::Container { id, name, pod: pod.as_name() },
            Self::Volume { id, pod } => Fact::Volume { id, pod: pod.as_name() },
            Self::Claim { uid, pod } => Fact::Claim { uid, pod: pod.as_name() },
            Self::ClaimName { namespace, name, pod } => Fact::ClaimName { namespace, name, pod: pod.as_name() },
            Self::Device { id, pod } => Fact::Device { id, pod: pod.as_name() },
            Self::Attributes { pod_uid, attributes } => Fact::Attributes { pod_uid, attributes },
            Self::Cause { pod_uid, span } => Fact::Cause { pod_uid, span: *span },
            Self::Node { attributes } => Fact::Node { attributes },
            Self::Gone { pod_uid, at_unix_nano } => Fact::Gone { pod_uid, at_unix_nano: *at_unix_nano },
        }
    }
}

impl OwnedPodName {
    /// The name, borrowed.
    pub fn as_name(&self) -> PodName<'_> {
        PodName { namespace: &self.namespace, name: &self.name, uid: &self.uid }
    }
}

// === impl Source ===

impl Source {
    /// The value of `Owner::source`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Span => "span",
            Self::Runtime => "runtime",
            Self::Api => "api",
            Self::Event => "event",
            Self::Path => "path",
            Self::Claim => "claim",
            Self::Volume => "volume",
            Self::Device => "device",
            Self::Trace => "trace",
        }
    }
}
