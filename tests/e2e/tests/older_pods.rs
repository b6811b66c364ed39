//! Pods that are older than the agent, on a real containerd: the runtime tells whose they are, without an API server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spanlet::api::CallEntry;
use spanlet_e2e::{Turn, spans};
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::kubelet::{Kubelet, PodSpec, RunningPod, Tracing};
use spanlet_node::runtime::Runtime;
use spanlet_node::upstream::{Keep, Upstream};

const PODS: [&str; 3] = ["web", "api", "batch"];
/// From the agent's start until it knows the pods.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_older_than_the_agent_are_known_without_an_api_server() {
    let Some(_turn) = Turn::take().await else { return };
    if let Some(reason) = Runtime::unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let runtime = Runtime::start().unwrap();
    let pods = started_before_the_agent(&runtime).await;

    let upstream = Upstream::start(Keep::Requests).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free().unwrap();
    let config = agent::config(&ports, &runtime.socket(), &upstream.endpoint());
    let started = Instant::now();
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    let known_after = wait_until_known(&agent, started).await;
    println!("{} pods known {known_after:?} after the agent's start", PODS.len());
    assert!(known_after <= KNOWN_WITHIN, "{known_after:?}\n{}", agent.log());
    agent.wait_until_attached().await.unwrap();
    assert_the_agent_sees_nothing_of_its_own(&agent).await;

    let tracing = Tracing::new(Some(&ports.otlp_endpoint()), "test-node").unwrap();
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await.unwrap();
    for pod in &pods {
        kubelet.exec_sync(pod, &["echo", "still there"]).await.unwrap();
        kubelet.stop_pod(pod).await.unwrap();
    }
    kubelet.flush_spans().unwrap();
    let calls: Vec<CallEntry> = agent.get("/api/v1/calls").await.unwrap();
    assert!(agent.stop().await.unwrap().success(), "{}", agent.log());
    for pod in &pods {
        every_call_names(pod, &calls);
    }
    every_exec_span_names_its_pod(&pods, &spans::arrived(upstream.received()).unwrap(), &calls);
}

async fn started_before_the_agent(runtime: &Runtime) -> Vec<RunningPod> {
    let tracing = Tracing::new(None, "test-node").unwrap();
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await.unwrap();
    let mut pods = Vec::new();
    for name in PODS {
        let pod = kubelet.start_pod(&PodSpec::new("default", name).unwrap()).await;
        pods.push(pod.unwrap_or_else(|error| panic!("{error:#}\n{}", runtime.log())));
    }
    pods
}

async fn wait_until_known(agent: &Agent, started: Instant) -> Duration {
    let known = format!("spanlet_pods_known {}", PODS.len());
    loop {
        let metrics = agent.metrics().await.unwrap_or_default(); // it may not listen yet
        if metrics.lines().any(|line| line == known) {
            return started.elapsed();
        }
        assert!(started.elapsed() < PATIENCE, "{}\n{metrics}", agent.log());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The lists came over the watched socket, and are no calls of the node.
async fn assert_the_agent_sees_nothing_of_its_own(agent: &Agent) {
    let calls: Vec<CallEntry> = agent.get("/api/v1/calls").await.unwrap();
    assert_eq!(calls, [], "calls of the agent");
    let seen = agent.status().await.unwrap().events.seen;
    assert_eq!(seen, BTreeMap::new(), "events of the agent's connection");
}

fn every_call_names(pod: &RunningPod, calls: &[CallEntry]) {
    let is_its = |call: &&CallEntry| {
        call.container_id.as_ref() == Some(&pod.container_id) || call.sandbox_id.as_ref() == Some(&pod.sandbox_id)
    };
    let methods: Vec<&str> = calls.iter().filter(is_its).filter_map(|call| call.method.as_deref()).collect();
    for method in ["ExecSync", "StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"] {
        assert!(methods.contains(&format!("runtime.v1.RuntimeService/{method}").as_str()), "{method}: {methods:?}");
    }
    for call in calls.iter().filter(is_its) {
        let told = call.pod.as_ref().map(|pod| (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()));
        assert_eq!(
            told,
            Some((pod.spec.namespace.as_str(), pod.spec.name.as_str(), pod.spec.uid.as_str())),
            "{call:?}"
        );
    }
}

/// kubelet's span of an exec is alone in its trace and says nothing of the pod; its call names the container.
fn every_exec_span_names_its_pod(pods: &[RunningPod], arrived: &[spans::ServiceSpan], calls: &[CallEntry]) {
    let execs: Vec<_> = arrived.iter().filter(|span| span.span.name == "runtime.v1.RuntimeService/ExecSync").collect();
    assert_eq!(execs.len(), pods.len());
    for span in execs {
        let its = |call: &&CallEntry| call.traceparent.as_deref().is_some_and(|text| spans::ids_of(text) == span.id());
        let container = calls.iter().find(its).unwrap().container_id.as_ref().unwrap();
        let pod = pods.iter().find(|pod| pod.container_id == *container).unwrap();
        assert_eq!(span.text("k8s.pod.uid"), Some(pod.spec.uid.as_str()));
        assert_eq!(span.text("k8s.pod.name"), Some(pod.spec.name.as_str()));
        assert_eq!(span.text("k8s.container.name"), Some(pod.spec.container.name.as_str()));
        assert_eq!(span.text("container.id"), Some(container.as_str()));
    }
}
