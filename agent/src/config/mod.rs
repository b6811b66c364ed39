//! Configuration: the only place where strings, files and the environment become types.
//!
//! ```text
//!  built-in defaults ◄─ overridden by ─ YAML file ◄─ overridden by ─ OTEL_* variables
//! ```

mod codec;
mod default_file;
mod environment;
mod error;
mod file;
mod keys;
mod line;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use default_file::default_file;
pub use error::{ConfigError, Problem};

use crate::call::SocketKind;

/// Where the file is looked for if none is named; there it may be missing.
pub const DEFAULT_PATH: &str = "/etc/spanlet/config.yaml";

/// What the agent takes besides spans and the recorder: code (8 MiB), kernel maps, tables of calls and pods, what is on
/// its way in connections, and what the allocator keeps between large requests.
const BASE_BYTES: usize = 32 << 20;

/// Everything that can be configured; every key optional in the file.
#[derive(Debug, Clone, Default, PartialEq)]
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

#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    pub mode: CaptureMode,
    pub sockets: Vec<WatchedSocket>,
    /// The part of one core that the kernel programs may take, on average over 10 s; `None` = any.
    pub max_cpu_ratio: Option<f64>,
    /// A power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Where every kernel event is written to as it came.
    pub dump_events: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlate {
    /// How long spans may be held for their pod to become known; only without probes.
    pub hold: Duration,
    /// A sampled call that takes at least this long gets spans of its phases.
    pub slow_call: Duration,
    pub phase_spans: bool,
    pub plugin_spans: bool,
    pub exec_spans: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enrich {
    pub node_name: Option<String>,
    pub cluster_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, without `service.*`.
    pub resource_attributes: Vec<(String, String)>,
    pub shim_service: ShimService,
    pub runtime: Ask,
    /// The runtime's CRI socket; `None` takes the first of `capture.sockets` that answers.
    pub runtime_endpoint: Option<PathBuf>,
    /// Whether kubelet is asked whose devices and claims are.
    pub pod_resources: Ask,
    pub kubernetes: KubernetesAccess,
    /// Used by [`KubernetesAccess::Kubeconfig`]; `None`: `$KUBECONFIG`, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Keys of pod labels that are told: exact, or a prefix if it ends in `*`.
    pub labels: Vec<String>,
    /// Keys of pod annotations that are told, likewise.
    pub annotations: Vec<String>,
    /// Keys of node labels that are told, likewise.
    pub node_labels: Vec<String>,
    /// Whether the API may be asked for the owners of ReplicaSets and Jobs.
    pub owner_lookups: bool,
}

/// Whether a source of identity is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ask {
    #[default]
    Auto,
    Off,
}

/// How the Kubernetes API is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KubernetesAccess {
    /// Becomes `InCluster` when the environment tells that the agent runs in a pod; else it is as `Off`.
    #[default]
    Auto,
    /// By the service account of the agent's pod.
    InCluster,
    Kubeconfig,
    Off,
}

/// What happens to the service names of containerd's shims, `containerd-shim-<sandbox id>`: one for each pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShimService {
    #[default]
    Keep,
    /// `service.name` becomes `containerd-shim`, what it was becomes `service.instance.id`.
    Collapse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// How long the agent goes on sending what it holds after it was told to stop.
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub max_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub max_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter.
    pub level: String,
    pub json: bool,
}

// === impl Config ===

impl Config {
    /// Reads `file`, or [`DEFAULT_PATH`] if that exists, and then `environment`, which maps a variable's name to its value.
    /// A node's name that neither tells is the host's, as kubelet has it.
    ///
    /// # Errors
    /// [`ConfigError`] lists every problem of both, with key and line.
    pub fn load(file: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        let mut config = Self::parse(&text, environment)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })?;
        if config.enrich.node_name.is_none() {
            config.enrich.node_name = environment::node_name_of_host();
        }
        Ok(config)
    }

    /// Reads the text of a file and then the environment.
    ///
    /// # Errors
    /// Every problem of both, in the order of the file, then of the variables.
    pub fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut config = Self::default();
        let mut problems = file::apply(text, &mut config);
        let overridden = environment::apply(environment, &mut config, &mut problems);
        file::check(text, &config, &overridden, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The part of `memory.max_bytes` that spans between receive and export may take.
    pub fn span_bytes(&self) -> usize {
        self.memory.max_bytes.saturating_sub(self.record.max_bytes + BASE_BYTES)
    }
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
        Self {
            mode: CaptureMode::Auto,
            sockets: default_sockets(),
            max_cpu_ratio: Some(0.02),
            ring_bytes: 1 << 20,
            dump_events: None,
        }
    }
}

/// The sockets of the runtimes and plugins where their packages put them. `/run` and `/var/run` are one folder, but a
/// path is compared as it was bound or dialled.
fn default_sockets() -> Vec<WatchedSocket> {
    const CRI: [&str; 5] = [
        "containerd/containerd.sock",
        "crio/crio.sock",
        "cri-dockerd.sock",
        "k3s/containerd/containerd.sock", // k3s and RKE2
        "k0s/containerd.sock",
    ];
    // What is under `plugins` speaks CSI, or DRA if the socket is called so.
    const KUBELET: [(SocketKind, &str); 5] = [
        (SocketKind::Csi, "/var/lib/kubelet/plugins/*"),
        (SocketKind::Csi, "/csi/csi.sock"), // the same sockets, as the drivers' containers see them
        (SocketKind::Registration, "/var/lib/kubelet/plugins_registry/*"),
        (SocketKind::DevicePlugin, "/var/lib/kubelet/device-plugins/*"),
        (SocketKind::PodResources, "/var/lib/kubelet/pod-resources/*"),
    ];
    let cri =
        CRI.iter().flat_map(|name| ["/run", "/var/run"].map(|folder| (SocketKind::Cri, format!("{folder}/{name}"))));
    let kubelet = KUBELET.iter().map(|(kind, path)| (*kind, (*path).to_owned()));
    cri.chain(kubelet).map(|(kind, path)| WatchedSocket { kind, path }).collect()
}

impl Default for Correlate {
    fn default() -> Self {
        Self {
            hold: Duration::ZERO,
            slow_call: Duration::from_secs(1), // where a person begins to wait
            phase_spans: true,
            plugin_spans: true,
            exec_spans: true,
        }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            gzip: false,
            timeout: Duration::from_secs(10), // the exporter specification's default
            queue_bytes: 48 << 20,            // 90,000 spans of a usual size
            batch_spans: 512,
            batch_delay: Duration::from_millis(200),
            drain_timeout: Duration::from_secs(20), // Kubernetes kills after 30 s
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

#[cfg(test)]
mod tests;
