//! What must never be copied out of the kernel: secrets planted wherever a pod can hold one, looked for wherever spanlet could
//! have put them.

use std::collections::HashMap;

use serde_json::{Value, json};
use spanlet_e2e::Turn;
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::kubelet::cri::AuthConfig;
use spanlet_node::kubelet::{Kubelet, PodSpec, Tracing};
use spanlet_node::runtime::Runtime;
use spanlet_node::upstream::{Keep, Upstream};

/// In every planted secret; what follows says where it was planted.
const CANARY: &str = "canary-5f1e";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_a_pod_leaves_the_kernel() {
    let Some(_turn) = Turn::take().await else { return };
    if let Some(reason) = Runtime::unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let runtime = Runtime::start().unwrap();
    let upstream = Upstream::start(Keep::Requests).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let events = directory.path().join("events");
    let ports = Ports::free().unwrap();
    let mut config = agent::config(&ports, &runtime.socket(), &upstream.endpoint());
    config["capture"]["dump_events"] = json!(events);
    config["log"] = json!({"level": "trace"});
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();

    let tracing = Tracing::new(Some(&ports.otlp_endpoint()), "test-node").unwrap();
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await.unwrap();
    let streaming_url = live_with_secrets(&kubelet).await;
    kubelet.flush_spans().unwrap();

    let token = streaming_url.rsplit('/').next().unwrap().to_owned();
    let pods: Value = agent.get("/api/v1/pods").await.unwrap();
    let pod: Value = agent.get("/api/v1/pods/default/secretive").await.unwrap();
    let calls: Value = agent.get("/api/v1/calls").await.unwrap();
    let metrics = agent.metrics().await.unwrap();
    assert!(agent.stop().await.unwrap().success(), "{}", agent.log());
    let exported = upstream.received().requests().iter().flat_map(|request| request.body.to_vec()).collect();
    let places: [(&str, Vec<u8>, &str); 6] = [
        ("the kernel's events", std::fs::read(&events).unwrap(), "secretive"),
        ("the log", agent.log().into_bytes(), "spanlet"),
        ("the metrics", metrics.into_bytes(), "spanlet_calls_total"),
        ("the pods", format!("{pods}{pod}").into_bytes(), "secretive"),
        ("the calls", calls.to_string().into_bytes(), "secretive"),
        ("the exported spans", exported, "secretive"),
    ];
    for (place, bytes, always_there) in &places {
        assert!(contains(bytes, always_there), "{place}: the search finds nothing, not even {always_there}");
        for secret in [CANARY, &token] {
            assert!(!contains(bytes, secret), "{place} hold {}", around(bytes, secret));
        }
    }
}

/// Returns the streaming URL that the runtime gave.
async fn live_with_secrets(kubelet: &Kubelet) -> String {
    let planted = |place: &str| format!("{CANARY}-{place}");
    let mut spec = PodSpec::new("default", "secretive").unwrap();
    spec.annotations = HashMap::from([("example.com/token".to_owned(), planted("annotation"))]);
    spec.container.envs = vec![("PASSWORD".to_owned(), planted("env"))];
    spec.container.args = vec![planted("argument")];
    let pod = kubelet.start_pod(&spec).await.unwrap();
    kubelet.relist().await.unwrap();
    let told = kubelet.exec_sync(&pod, &["sh", "-c", &format!("echo {} $PASSWORD", planted("exec"))]).await.unwrap();
    assert_eq!(told, format!("{} {}\n", planted("exec"), planted("env")));
    let url = kubelet.exec_url(&pod, &["cat", &planted("exec-stream")]).await.unwrap();
    let auth = AuthConfig {
        username: planted("username"),
        password: planted("password"),
        auth: planted("auth"),
        identity_token: planted("identity-token"),
        registry_token: planted("registry-token"),
        server_address: "127.0.0.1:1".to_owned(),
    };
    kubelet.pull_image("127.0.0.1:1/private:1", auth, &spec).await.unwrap_err();
    kubelet.stop_pod(&pod).await.unwrap();
    url
}

fn contains(bytes: &[u8], text: &str) -> bool {
    position(bytes, text).is_some()
}

fn position(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text.as_bytes())
}

fn around(bytes: &[u8], text: &str) -> String {
    let at = position(bytes, text).unwrap_or(0);
    String::from_utf8_lossy(&bytes[at.saturating_sub(40)..(at + 80).min(bytes.len())]).into_owned()
}
