//! Configuration: the only place where strings, files and the environment become types.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::call::SocketKind;

/// Everything that can be configured; every key optional in the file.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub receive: Receive,
    pub capture: Capture,
    pub correlate: Correlate,
    pub enrich: Enrich,
    pub export: Export,
    pub record: Record,
    pub memory: Memory,
    pub admin: Admin,
    pub log: Log,
}

#[derive(Debug, Clone)]
pub struct Receive {
    pub grpc_listen: Option<SocketAddr>,
    pub http_listen: Option<SocketAddr>,
    pub unix_listen: Option<PathBuf>,
    /// Largest request, after decompression.
    pub max_request_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptureMode {
    #[default]
    Auto,
    Fentry,
    Kprobe,
    Tracepoint,
    Off,
}

/// One watched socket: a path, or a prefix of paths if it ends in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedSocket {
    pub kind: SocketKind,
    pub path: String,
}

#[derive(Debug, Clone)]
pub struct Capture {
    pub mode: CaptureMode,
    pub sockets: Vec<WatchedSocket>,
    /// A power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// CPU seconds of the programs a second above which they are detached.
    pub max_cpu_ratio: f64,
}

#[derive(Debug, Clone)]
pub struct Correlate {
    /// How long spans may be held for their pod to become known; only without probes.
    pub hold: Duration,
}

#[derive(Debug, Clone, Default)]
pub struct Enrich {
    pub node_name: Option<String>,
    pub cluster_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, without `service.*`.
    pub resource_attributes: Vec<(String, String)>,
    pub shim_service: ShimService,
}

/// What happens to the service names of containerd's shims, `containerd-shim-<sandbox id>`: one for each pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShimService {
    #[default]
    Keep,
    /// `service.name` becomes `containerd-shim`, what it was becomes `service.instance.id`.
    Collapse,
}

#[derive(Debug, Clone)]
pub struct Export {
    /// `http://host:port`; without it spans stay local.
    pub endpoint: Option<String>,
    pub headers: Vec<(String, String)>,
    pub gzip: bool,
    /// Deadline of one export call.
    pub timeout: Duration,
    /// Most bytes of encoded spans held for export.
    pub queue_bytes: usize,
    /// A batch is sent when it holds this many spans or `batch_delay` has passed.
    pub batch_spans: usize,
    pub batch_delay: Duration,
}

#[derive(Debug, Clone)]
pub struct Record {
    pub max_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Memory {
    pub max_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter.
    pub level: String,
    pub json: bool,
}

// === defaults ===

impl Default for Receive {
    fn default() -> Self {
        Self {
            grpc_listen: Some(SocketAddr::from(([127, 0, 0, 1], 4317))),
            http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 4318))),
            unix_listen: None,
            max_request_bytes: 64 << 20, // the OTLP specification's recommended limit
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self { mode: CaptureMode::Auto, sockets: Vec::new(), ring_bytes: 1 << 20, max_cpu_ratio: 0.02 }
    }
}

impl Default for Correlate {
    fn default() -> Self {
        Self { hold: Duration::ZERO }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            gzip: false,
            timeout: Duration::from_secs(10), // the exporter specification's default
            queue_bytes: 32 << 20,
            batch_spans: 512,
            batch_delay: Duration::from_millis(200),
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self { max_bytes: 16 << 20 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { max_bytes: 128 << 20 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 4319))), metrics_listen: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false }
    }
}
