//! One gRPC call on a watched unix socket, as the kernel saw it.
//!
//! ```text
//! client writes last      server reads     server writes          server writes      client reads
//! request byte        ──► it           ──► first response byte ─► last one       ──► it
//!      └── request_wait ───┘└── handling ────┘└── response_send ──┘└─ response_wait ─┘
//! ```
//!
//! A call travels twice: once when its request is known ([`CallEvent::Started`]: enough to tell whose it is while it still
//! runs) and once when it is over ([`CallEvent::Finished`]).

use std::sync::Arc;

use crate::pod::Owner;

/// What kind of server listens on a watched socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SocketKind {
    Cri = 1,
    Csi = 2,
    Dra = 3,
    DevicePlugin = 4,
    Registration = 5,
    PodResources = 6,
}

/// The listening end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Socket {
    pub kind: SocketKind,
    /// The path the client connected to, else the one the server bound.
    pub path: String,
}

/// How the method of a call became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Naming {
    /// `:path` was read on the wire.
    Wire,
    /// An HPACK index older than the attach, named by a joined span.
    Learned,
    Unknown,
}

/// A W3C `traceparent` header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub flags: u8,
}

/// How the outcome of a call became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusSource {
    /// `grpc-status` on the wire.
    Wire,
    /// RST_STREAM or a closed connection, and the age of the call against its `grpc-timeout`.
    Inferred,
    /// The shape of the response's frames: its header table is older than the attach.
    Shape,
}

/// The gRPC status of a finished call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    /// gRPC status code, 0 = OK.
    pub code: u8,
    pub source: StatusSource,
}

/// The five points of a call, each in Unix nanoseconds; `None` where the kernel side could not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Points {
    /// Entry of the client's write that held the request's last byte.
    pub request_written_ns: Option<u64>,
    /// The server was handed the request's last byte.
    pub request_read_ns: Option<u64>,
    /// Entry of the server's write that held the response's first byte.
    pub response_started_ns: Option<u64>,
    /// Entry of the server's write that held the response's last byte.
    pub response_written_ns: Option<u64>,
    /// The client was handed the response's last byte.
    pub response_read_ns: Option<u64>,
}

/// What field 1 of the request says about whom the call concerns; at most a few hundred bytes, copied by the kernel program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Subject {
    #[default]
    Unknown,
    /// RunPodSandbox: the sandbox's metadata.
    Sandbox { name: String, uid: String, namespace: String, attempt: u32 },
    /// Calls whose field 1 is a sandbox id.
    SandboxId(String),
    /// Calls whose field 1 is a container id.
    ContainerId(String),
    /// ImageService calls: the image's name.
    Image(String),
    /// CSI calls: the volume's id and the absolute paths among the request's top-level fields.
    Volume { id: String, paths: Vec<String> },
    /// DRA calls: the claims to prepare.
    Claims(Vec<Claim>),
    /// Device plugin calls that give devices to a container: the first device's id.
    Device(String),
}

/// A DRA claim as the request names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    pub namespace: String,
    pub uid: String,
    pub name: String,
}

/// What the first field of a request of the CRI looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    /// The request has no bytes.
    Empty,
    /// Its field 1 is none that is copied.
    NoField,
    /// 64 hexadecimal digits: of a sandbox or a container.
    Id,
    /// A version.
    Number,
    Text,
    /// A sandbox's name, uid and namespace.
    Metadata,
    /// A message whose field 1 is text: an image.
    Nested,
}

/// What the shape of an unnamed call tells of its method. It is shown as such and used for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guess {
    /// Methods of this shape, if they are few, as kubelet calls them.
    pub methods: &'static [&'static str],
    pub body: Body,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Process id in the agent's pid namespace; `None` where it has none there or is not known.
    pub pid: Option<u32>,
    /// The container the process runs in, if any.
    pub container_id: Option<Arc<str>>,
}

/// One gRPC call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Inode of the client's socket: names the connection while the node is up.
    pub connection: u64,
    /// HTTP/2 stream id.
    pub stream: u32,
    pub socket: Arc<Socket>,
    /// `package.Service/Method`, without a leading slash.
    pub method: Option<Arc<str>>,
    pub naming: Naming,
    /// Only while it is unnamed.
    pub guess: Option<Guess>,
    pub traceparent: Option<Traceparent>,
    /// `None` while it runs, and for good if its end was not seen.
    pub status: Option<Status>,
    /// A gap in the kernel's events fell into this call: its points may be missing.
    pub lost_track: bool,
    /// The request's or the response's messages were more than one.
    pub streaming: bool,
    /// Entry of the write that held the request's first byte, Unix nanoseconds.
    pub started_ns: u64,
    /// When the call was over: the last point known, Unix nanoseconds; equals `started_ns` while it runs. See
    /// [`Call::is_end_known`].
    pub ended_ns: u64,
    pub points: Points,
    /// `grpc-timeout`, nanoseconds.
    pub timeout_ns: Option<u64>,
    pub subject: Subject,
    /// RunPodSandbox: the sandbox's id; CreateContainer: the container's.
    pub response_id: Option<String>,
    pub client: Peer,
    pub server: Peer,
    /// Set by `enrich`.
    pub owner: Option<Owner>,
}

/// What capture tells of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEvent {
    /// The request's headers and its field 1 are known; the call runs.
    Started(Box<Call>),
    /// The call is over, or its end can no longer be seen.
    Finished(Box<Call>),
}

// === impl SocketKind ===

impl SocketKind {
    pub const ALL: [Self; 6] =
        [Self::Cri, Self::Csi, Self::Dra, Self::DevicePlugin, Self::Registration, Self::PodResources];

    /// The label of this kind in metrics and config.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Csi => "csi",
            Self::Dra => "dra",
            Self::DevicePlugin => "device",
            Self::Registration => "registration",
            Self::PodResources => "pod-resources",
        }
    }
}

// === impl Naming ===

impl Naming {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Learned => "learned",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Call ===

impl Call {
    /// Whether the end of a finished call is known. If not, its records were lost: how it ended is unknown, and so is how long it
    /// took. A stream's end does not show in its points, which are those of its first message.
    pub const fn is_end_known(&self) -> bool {
        self.status.is_some() || self.points.response_written_ns.is_some() && !self.streaming
    }
}

// === impl Body ===

impl Body {
    /// In words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Empty => "an empty request",
            Self::NoField => "a request without a readable field 1",
            Self::Id => "a request that names a sandbox or container",
            Self::Number => "a request that names a version",
            Self::Text => "a request that names something",
            Self::Metadata => "a request with a sandbox's metadata",
            Self::Nested => "a request that names an image",
        }
    }
}

// === impl Points ===

impl Points {
    /// Nanoseconds from the request's last byte written to it read.
    pub fn request_wait_ns(&self) -> Option<u64> {
        waited(self.request_written_ns, self.request_read_ns)
    }

    /// Nanoseconds from the request read to the response's first byte written; 0 if the server began to answer before it had read
    /// the request's last byte.
    pub fn handling_ns(&self) -> Option<u64> {
        between(self.request_read_ns, self.handled_ns())
    }

    /// Nanoseconds from the response's first byte written, or the request read if that is later, to the response's last byte.
    pub fn response_send_ns(&self) -> Option<u64> {
        between(self.handled_ns(), self.response_written_ns)
    }

    /// Where handling ends and sending begins: so the four phases add up to the call.
    fn handled_ns(&self) -> Option<u64> {
        Some(self.response_started_ns?.max(self.request_read_ns.unwrap_or_default()))
    }

    /// Nanoseconds from the response's last byte written to it read.
    pub fn response_wait_ns(&self) -> Option<u64> {
        waited(self.response_written_ns, self.response_read_ns)
    }

    /// The four phases as pairs of times, Unix nanoseconds: each ends where the next begins, but for a wait that was none.
    pub fn phases(&self) -> [Option<(u64, u64)>; 4] {
        let points = [
            self.request_written_ns,
            self.request_read_ns,
            self.handled_ns(),
            self.response_written_ns,
            self.response_read_ns,
        ];
        let mut phases = std::array::from_fn(|phase| points[phase].zip(points[phase + 1]));
        for wait in [0, 3] {
            phases[wait] = phases[wait].map(|(written_ns, read_ns)| {
                (written_ns, if waited_ns(written_ns, read_ns) == Some(0) { written_ns } else { read_ns })
            });
        }
        phases
    }

    /// The latest point that is known.
    pub fn last_ns(&self) -> Option<u64> {
        let points = [
            self.request_written_ns,
            self.request_read_ns,
            self.response_started_ns,
            self.response_written_ns,
            self.response_read_ns,
        ];
        points.into_iter().flatten().max()
    }

    /// Nanoseconds from the first point to the last: the sum of the four phases.
    pub fn whole_ns(&self) -> Option<u64> {
        between(self.request_written_ns, self.response_read_ns)
    }
}

/// How much earlier than the time of its write a read may be told: what passes between queueing bytes and telling of it, in which a
/// thread may lose its CPU for some turns.
const READ_BEFORE_NS: u64 = 100_000_000;

fn between(from: Option<u64>, to: Option<u64>) -> Option<u64> {
    to?.checked_sub(from?)
}

fn waited(written: Option<u64>, read: Option<u64>) -> Option<u64> {
    waited_ns(written?, read?)
}

/// How long what was written waited to be read: not at all where it was read before. In tracepoint mode a reader that is running may
/// be quicker than the program that takes the time of the write.
fn waited_ns(written_ns: u64, read_ns: u64) -> Option<u64> {
    let is_early = read_ns < written_ns && written_ns - read_ns < READ_BEFORE_NS;
    if is_early { Some(0) } else { read_ns.checked_sub(written_ns) }
}

// === impl Traceparent ===

impl Traceparent {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`, version 00 only, neither id all zero (W3C Trace Context §3.2.2).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text: &[u8; 55] = value.try_into().ok()?;
        if &text[..3] != b"00-" || text[35] != b'-' || text[52] != b'-' {
            return None;
        }
        let mut parsed = Self { trace_id: [0; 16], span_id: [0; 8], flags: 0 };
        unhex(&text[3..35], &mut parsed.trace_id)?;
        unhex(&text[36..52], &mut parsed.span_id)?;
        let mut flags = [0; 1];
        unhex(&text[53..55], &mut flags)?;
        parsed.flags = flags[0];
        (parsed.trace_id != [0; 16] && parsed.span_id != [0; 8]).then_some(parsed)
    }
}

impl Traceparent {
    /// Whether the caller records its spans (W3C Trace Context §3.2.2.5.1).
    pub const fn is_sampled(&self) -> bool {
        const SAMPLED: u8 = 1;
        self.flags & SAMPLED != 0
    }
}

impl std::fmt::Display for Traceparent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{}-{}-{:02x}", Hex(&self.trace_id), Hex(&self.span_id), self.flags)
    }
}

/// Bytes shown as lower-case hexadecimal digits.
#[derive(Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lower-case only: the specification forbids upper case in these fields.
fn unhex(digits: &[u8], bytes: &mut [u8]) -> Option<()> {
    for (pair, byte) in digits.chunks_exact(2).zip(bytes) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(())
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_read_as_written() {
        let text = "00-e34167eb85a00f56c785ffcb25fd0640-9eeed8b6bf99ac60-01";
        assert_eq!(Traceparent::parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00-e34167eb85a00f56c785ffcb25fd0640-9eeed8b6bf99ac60-0",
            "01-e34167eb85a00f56c785ffcb25fd0640-9eeed8b6bf99ac60-01",
            "00-E34167eb85a00f56c785ffcb25fd0640-9eeed8b6bf99ac60-01",
            "00-00000000000000000000000000000000-9eeed8b6bf99ac60-01",
            "00-e34167eb85a00f56c785ffcb25fd0640-0000000000000000-01",
            "00_e34167eb85a00f56c785ffcb25fd0640-9eeed8b6bf99ac60-01",
        ] {
            assert_eq!(Traceparent::parse(text.as_bytes()), None, "{text}");
        }
    }
}
