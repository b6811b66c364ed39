//! The types of the debug API (JSON on the admin listener), shared by the server and the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a pod's start stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodState {
    Starting,
    Started,
    Failed,
    Terminating,
    Gone,
}

/// The slowest entry of a pod's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slowest {
    pub name: String,
    pub seconds: f64,
}

/// A line of `GET /api/v1/pods`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodSummary {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub state: PodState,
    /// RFC 3339, UTC, nanoseconds.
    pub started_at: String,
    pub duration_seconds: f64,
    /// The part of the start that cri, csi, dra, device, exec and wait entries cover; 0 to 1.
    pub accounted_ratio: f64,
    pub slowest: Option<Slowest>,
}

/// `GET /api/v1/pods/{namespace}/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodTimeline {
    #[serde(flatten)]
    pub summary: PodSummary,
    pub entries: Vec<Entry>,
}

/// What an entry of a timeline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    Sync,
    Cri,
    Csi,
    Dra,
    Device,
    Exec,
    Wait,
    Gap,
}

/// What an entry is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntrySource {
    Otlp,
    Wire,
    Exec,
}

/// One bar of a pod's waterfall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    pub source: EntrySource,
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
    pub depth: u32,
    pub attributes: BTreeMap<String, serde_json::Value>,
}

/// The pod of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// What the shape of an unnamed call tells of its method: no name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodGuess {
    /// Methods of this shape, if they are few.
    pub methods: Vec<String>,
    /// What the shape is, in words.
    pub evidence: Vec<String>,
}

/// A call of `GET /api/v1/calls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEntry {
    pub connection: u64,
    pub stream: u32,
    /// `package.Service/Method`; null while unnamed.
    pub method: Option<String>,
    /// `wire`, `learned` or `unknown`.
    pub naming: String,
    /// The whole header value.
    pub traceparent: Option<String>,
    /// gRPC status code; null while unknown.
    pub status: Option<u8>,
    pub pod: Option<PodName>,
    pub sandbox_id: Option<String>,
    pub container_id: Option<String>,
    pub request_wait_ns: Option<u64>,
    pub handling_ns: Option<u64>,
    pub response_send_ns: Option<u64>,
    pub response_wait_ns: Option<u64>,
    pub client_pid: Option<u32>,
    pub server_pid: Option<u32>,
    /// Of an unnamed call; never its method.
    #[serde(default)]
    pub guess: Option<MethodGuess>,
    /// It does not run any more. Without a `status` nobody knows how it ended.
    #[serde(default)]
    pub over: bool,
    /// A gap in the kernel's events fell into it.
    #[serde(default)]
    pub lost_track: bool,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub capture: CaptureStatus,
    pub spans: SpanLedger,
    pub events: EventLedger,
}

/// Whether the probes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureState {
    Starting,
    Attached,
    Off,
}

/// What became of attaching the probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    pub state: CaptureState,
    /// `fentry`, `kprobe` or `tracepoint`; null while not attached.
    pub mode: Option<String>,
    /// Why this mode, one sentence each.
    pub reasons: Vec<String>,
    /// The kernel programs that are attached, and how many instructions the verifier went through for each; null where the
    /// kernel does not tell (before 5.16).
    pub programs: BTreeMap<String, Option<u32>>,
}

/// Every span's fate: `received + synthesized = exported + dropped + filtered + held`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpanLedger {
    pub received: u64,
    pub synthesized: u64,
    pub exported: u64,
    /// By reason.
    pub dropped: BTreeMap<String, u64>,
    /// By rule.
    pub filtered: BTreeMap<String, u64>,
    pub held: u64,
    /// Requests, not spans: they are still their senders'.
    pub refused: u64,
}

/// Every kernel event's fate: `seen = delivered + lost`, kind by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventLedger {
    pub seen: BTreeMap<String, u64>,
    pub delivered: BTreeMap<String, u64>,
    pub lost: Vec<EventLoss>,
}

/// Kernel events of one kind that were lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLoss {
    pub kind: String,
    pub reason: String,
    pub count: u64,
}

// === impl CallEntry ===

impl CallEntry {
    /// An agent that is older than this command does not tell it apart from a status.
    pub const fn is_over(&self) -> bool {
        self.over || self.status.is_some()
    }
}

// === impl SpanLedger ===

impl SpanLedger {
    /// Whether every span is accounted for. True at rest; in motion the numbers are read one after the other.
    pub fn balances(&self) -> bool {
        let left = self.exported + self.dropped.values().sum::<u64>() + self.filtered.values().sum::<u64>();
        self.received + self.synthesized == left + self.held
    }
}
