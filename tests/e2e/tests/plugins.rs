//! Calls of CSI, DRA and device plugins past live probes: each becomes a span of its pod's start.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::json;
use spanlet_e2e::Turn;
use spanlet_e2e::spans::{self, ServiceSpan};
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::stand_in::{self, Answers, Server};
use spanlet_node::upstream::{Keep, Upstream};
use spanlet_proto::cri::{IdMessage, PodSandboxConfig, PodSandboxMetadata, RunPodSandboxRequest};
use spanlet_proto::pod_resources::{
    ContainerDevices, ContainerResources, DynamicResource, ListPodResourcesResponse, PodResources,
};

const POD_UID: &str = "0b5f4d5e-1c9a-4f0e-9d7a-3f2a6c1b8e44";
const RUN_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
const STAGE: &str = "/csi.v1.Node/NodeStageVolume";
const PUBLISH: &str = "/csi.v1.Node/NodePublishVolume";
const PREPARE: &str = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
const TRACE_ID: [u8; 16] = [0x7a; 16];
const CALL_SPAN: [u8; 8] = [0x11; 8];
const SYNC_SPAN: [u8; 8] = [0x5c; 8];
const PATIENCE: Duration = Duration::from_secs(30);

/// csi.proto
#[derive(Clone, PartialEq, prost::Message)]
struct NodeStageVolumeRequest {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "3")]
    staging_target_path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NodePublishVolumeRequest {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "4")]
    target_path: String,
}

/// dra/v1/api.proto
#[derive(Clone, PartialEq, prost::Message)]
struct NodePrepareResourcesRequest {
    #[prost(message, repeated, tag = "1")]
    claims: Vec<Claim>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Claim {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    name: String,
}

/// deviceplugin/v1beta1/api.proto
#[derive(Clone, PartialEq, prost::Message)]
struct AllocateRequest {
    #[prost(message, repeated, tag = "1")]
    container_requests: Vec<ContainerAllocateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerAllocateRequest {
    #[prost(string, repeated, tag = "1")]
    devices_ids: Vec<String>,
}

/// The servers of a node, each on a socket of its own.
struct Node {
    directory: tempfile::TempDir,
    _servers: Vec<Server>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_calls_are_spans_of_their_pods_start() {
    let Some(_turn) = Turn::take().await else { return };
    let node = Node::start();
    let upstream = Upstream::start(Keep::Requests).unwrap();
    let ports = Ports::free().unwrap();
    let mut config = agent::config(&ports, &node.socket("cri"), &upstream.endpoint());
    config["capture"]["sockets"] = node.sockets();
    let mut agent = Agent::start(node.directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();

    node.start_pod().await;
    let call = |method: &str, start_ns: u64| client_span(method.trim_start_matches('/'), start_ns);
    let kubelet = call(RUN_POD_SANDBOX, unix_ns());
    let mut exporter = TraceServiceClient::connect(ports.otlp_endpoint()).await.unwrap();
    exporter.export(kubelet).await.unwrap();

    let started = Instant::now();
    while upstream.received().own_span_count() < 4 {
        if started.elapsed() > PATIENCE {
            let calls: serde_json::Value = agent.get("/api/v1/calls").await.unwrap();
            panic!("{} spans of ours; {calls:#}\n{}", upstream.received().own_span_count(), agent.log());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let arrived = spans::arrived(upstream.received()).unwrap();
    let expected =
        [(STAGE, "csi", "volume"), (PUBLISH, "csi", "path"), (PREPARE, "dra", "claim"), (ALLOCATE, "device", "device")];
    for (method, socket, source) in expected {
        let its = arrived.iter().find(|span| span.span.name == method[1..]).unwrap_or_else(|| panic!("no {method}"));
        is_part_of_the_start(its, method, &node.socket(socket), source);
    }
    assert!(agent.stop().await.unwrap().success(), "{}", agent.log());
    assert_eq!((upstream.received().span_count(), upstream.received().duplicate_count()), (5, 0));
}

fn is_part_of_the_start(span: &ServiceSpan, method: &str, socket: &Path, source: &str) {
    assert_eq!(span.service, "spanlet");
    assert_eq!(span.parent(), Some((TRACE_ID, SYNC_SPAN)), "{span:?}");
    for (key, value) in [
        ("k8s.pod.uid", POD_UID),
        ("k8s.pod.name", "train"),
        ("k8s.namespace.name", "ml"),
        ("spanlet.identity.source", source),
        ("rpc.system.name", "grpc"),
        ("rpc.method", &method[1..]),
        ("rpc.response.status_code", "OK"),
        ("server.address", socket.to_str().unwrap()),
    ] {
        assert_eq!(span.text(key), Some(value), "{key} of {span:?}");
    }
    for phase in ["request_wait", "handling", "response_send", "response_wait"] {
        assert!(span.int(&format!("spanlet.call.{phase}_ns")).is_some(), "{phase} of {span:?}");
    }
}

impl Node {
    /// kubelet, the runtime and three plugins; the pod `ml/train` has the device and the claim.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let answers = Answers::default();
        for method in [STAGE, PUBLISH, PREPARE, ALLOCATE] {
            answers.add(method, &());
        }
        answers.add(RUN_POD_SANDBOX, &IdMessage { id: "5a".repeat(32) });
        let container = ContainerResources {
            name: "app".to_owned(),
            devices: vec![ContainerDevices {
                resource_name: "vendor.com/gpu".to_owned(),
                device_ids: vec!["GPU-8f".to_owned()],
            }],
            dynamic_resources: vec![DynamicResource {
                claim_name: "train-gpu".to_owned(),
                claim_namespace: "ml".to_owned(),
            }],
        };
        let pod = PodResources { name: "train".to_owned(), namespace: "ml".to_owned(), containers: vec![container] };
        answers.add("/v1.PodResourcesLister/List", &ListPodResourcesResponse { pod_resources: vec![pod] });
        let path = |name: &str| directory.path().join(format!("{name}.sock"));
        let servers = ["cri", "csi", "dra", "device", "kubelet"].map(|name| Server::listen(&path(name), &answers));
        Self { _servers: servers.into_iter().map(Result::unwrap).collect(), directory }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.sock"))
    }

    /// CSI and DRA plugins share a folder, as kubelet's do.
    fn sockets(&self) -> serde_json::Value {
        let kinds = [("cri", "cri.sock"), ("csi", "*"), ("device", "device.sock"), ("pod-resources", "kubelet.sock")];
        kinds.iter().map(|(kind, name)| json!({"kind": kind, "path": self.directory.path().join(name)})).collect()
    }

    /// What kubelet calls when it starts the pod, in its order: only the runtime's call carries the trace.
    async fn start_pod(&self) {
        let requests = vec![ContainerAllocateRequest { devices_ids: vec!["GPU-8f".to_owned(), "GPU-90".to_owned()] }];
        let allocate = AllocateRequest { container_requests: requests };
        stand_in::call(&self.socket("device"), ALLOCATE, allocate, None).await.unwrap();

        let target_path = format!("/var/lib/kubelet/pods/{POD_UID}/volumes/kubernetes.io~csi/data/mount");
        let publish = NodePublishVolumeRequest { volume_id: "data".to_owned(), target_path };
        let staging_target_path = "/var/lib/kubelet/plugins/kubernetes.io/csi/driver/0123/globalmount".to_owned();
        let stage = NodeStageVolumeRequest { volume_id: publish.volume_id.clone(), staging_target_path };
        stand_in::call(&self.socket("csi"), STAGE, stage, None).await.unwrap();
        stand_in::call(&self.socket("csi"), PUBLISH, publish, None).await.unwrap();

        let claim = Claim { namespace: "ml".to_owned(), uid: "claim-uid-1".to_owned(), name: "train-gpu".to_owned() };
        let prepare = NodePrepareResourcesRequest { claims: vec![claim] };
        stand_in::call(&self.socket("dra"), PREPARE, prepare, None).await.unwrap();

        let metadata = PodSandboxMetadata {
            name: "train".to_owned(),
            uid: POD_UID.to_owned(),
            namespace: "ml".to_owned(),
            attempt: 0,
        };
        let run = RunPodSandboxRequest { config: Some(PodSandboxConfig { metadata: Some(metadata) }) };
        let traceparent = format!("00-{}-{}-01", "7a".repeat(16), "11".repeat(8));
        stand_in::call(&self.socket("cri"), RUN_POD_SANDBOX, run, Some(&traceparent)).await.unwrap();
    }
}

/// kubelet's span of the sandbox's call, a child of its `syncPod`.
fn client_span(name: &str, start_ns: u64) -> ExportTraceServiceRequest {
    const CLIENT: i32 = 3; // SpanKind of trace.proto
    let span = Span {
        trace_id: TRACE_ID.to_vec(),
        span_id: CALL_SPAN.to_vec(),
        parent_span_id: SYNC_SPAN.to_vec(),
        name: name.to_owned(),
        kind: CLIENT,
        start_time_unix_nano: start_ns,
        end_time_unix_nano: start_ns + 1_000_000,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

fn unix_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}
