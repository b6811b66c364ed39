//! What the agent tells: health, metrics, the debug API.

use serde_json::Value;
use spanlet::api::{CallEntry, PodSummary, Status};

use crate::support::{agent, client, get, http, ledger_at_rest, spans};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_status_are_served() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    let admin = agent.addresses().admin.unwrap();
    client(&agent).await.export(spans(0, 10)).await.unwrap();
    ledger_at_rest(&agent, 10).await;

    for path in ["/livez", "/readyz"] {
        assert_eq!(get(admin, path).await.status, 200, "{path}");
    }
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(metrics.text().contains("spanlet_spans_exported_total 10"));
    let alone = agent.addresses().metrics.unwrap();
    assert_eq!(get(alone, "/metrics").await.status, 200);
    assert_eq!(get(alone, "/api/v1/status").await.status, 404, "the metrics listener serves nothing else");

    let status: Status = serde_json::from_slice(&get(admin, "/api/v1/status").await.body).unwrap();
    assert_eq!((status.spans.received, status.spans.exported, status.spans.held), (10, 10, 0));
    assert!(status.spans.balances());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_api_answers_and_explains_itself_in_json() {
    let agent = agent("").await;
    let admin = agent.addresses().admin.unwrap();
    let pods: Vec<PodSummary> = serde_json::from_slice(&get(admin, "/api/v1/pods").await.body).unwrap();
    assert_eq!(pods, []);
    let calls = get(admin, "/api/v1/calls?method=Version&since=5m").await;
    let calls: Vec<CallEntry> = serde_json::from_slice(&calls.body).unwrap();
    assert_eq!(calls, []);
    let errors = [
        ("GET", "/api/v1/pods/default/none", 404),
        ("GET", "/api/v1/calls?since=yesterday", 400),
        ("GET", "/api/v1/calls?nonsense=1", 400),
        ("GET", "/api/v2", 404),
        ("POST", "/api/v1/pods", 405),
    ];
    for (method, path, status) in errors {
        let answer = http(admin, method, path, &[], b"").await;
        assert_eq!(answer.status, status, "{path}");
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(error["error"].is_string(), "{path}: {error}");
    }
    agent.stop().await;
}
