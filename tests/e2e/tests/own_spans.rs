//! Spans that spanlet makes of a real containerd's work: in the traces of the kubelet that caused it.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::json;
use spanlet_e2e::Turn;
use spanlet_e2e::spans::{self, ServiceSpan};
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::kubelet::{Kubelet, PodSpec, Tracing};
use spanlet_node::runtime::Runtime;
use spanlet_node::upstream::{Keep, SpanId, Upstream};

/// What a pod's start and end must show at least, each below the call that caused it.
const EXPECTED: [(&str, &str); 6] = [
    ("cni bridge ADD", "RunPodSandbox"),
    ("exec runc create", "RunPodSandbox"),
    ("exec runc start", "StartContainer"),
    ("exec runc delete", "StopPodSandbox"),
    ("cni bridge DEL", "StopPodSandbox"),
    ("handling", "RunPodSandbox"),
];
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_and_phases_are_below_the_calls_of_their_pod() {
    let Some(_turn) = Turn::take().await else { return };
    if let Some(reason) = Runtime::unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let runtime = Runtime::start().unwrap();
    let upstream = Upstream::start(Keep::Requests).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free().unwrap();
    let mut config = agent::config(&ports, &runtime.socket(), &upstream.endpoint());
    config["correlate"] = json!({"slow_call": "1ms"});
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();

    let tracing = Tracing::new(Some(&ports.otlp_endpoint()), "test-node").unwrap();
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await.unwrap();
    let spec = PodSpec::new("default", "web").unwrap();
    let pod = kubelet.start_pod(&spec).await.unwrap_or_else(|error| panic!("{error:#}\n{}", runtime.log()));
    kubelet.stop_pod(&pod).await.unwrap();
    kubelet.flush_spans().unwrap();

    let arrived = wait_for_all(&upstream, &agent).await;
    let by_id: HashMap<SpanId, &ServiceSpan> = arrived.iter().map(|span| (span.id(), span)).collect();
    for span in arrived.iter().filter(|span| span.service == "spanlet") {
        let parent = by_id[&span.parent().unwrap()];
        assert!(parent.service == "kubelet" && parent.span.name.starts_with("runtime.v1."), "{span:?}\n{parent:?}");
        assert!(parent.span.start_time_unix_nano <= span.span.start_time_unix_nano, "{span:?}\n{parent:?}");
        // A call of the node's, such as Version, may be slow too.
        let is_of_node = ["Version", "Status"].iter().any(|method| parent.span.name.ends_with(&format!("/{method}")));
        let (uid, name) = if is_of_node { (None, None) } else { (Some(spec.uid.as_str()), Some("web")) };
        assert_eq!((span.text("k8s.pod.uid"), span.text("k8s.pod.name")), (uid, name), "{span:?}");
    }
    assert!(agent.stop().await.unwrap().success(), "{}", agent.log());
    assert_eq!(upstream.received().duplicate_count(), 0);
}

/// The spans that arrived, once all that is expected is among them.
async fn wait_for_all(upstream: &Upstream, agent: &Agent) -> Vec<ServiceSpan> {
    let started = Instant::now();
    loop {
        let arrived = spans::arrived(upstream.received()).unwrap();
        let methods: HashMap<SpanId, &str> =
            arrived.iter().filter_map(|span| Some((span.id(), span.span.name.rsplit_once('/')?.1))).collect();
        let own = arrived.iter().filter(|span| span.service == "spanlet");
        let found: BTreeSet<(&str, &str)> =
            own.filter_map(|span| Some((span.span.name.as_str(), *methods.get(&span.parent()?)?))).collect();
        if EXPECTED.iter().all(|expected| found.contains(expected)) {
            return arrived;
        }
        assert!(started.elapsed() < PATIENCE, "only {found:#?}\n{}", agent.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
