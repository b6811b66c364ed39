//! The commands against an admin listener, and against none.

use std::net::SocketAddr;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use spanlet::cli::client::{Output, Target};
use spanlet::cli::render::Terminal;
use spanlet::cli::{Failure, calls, pod, pods, top};
use tokio::net::TcpListener;

use crate::timelines::slow_pull;

const TERMINAL: Terminal = Terminal { width: 100, colours: false, is_terminal: false };

#[tokio::test]
async fn pods_come_as_the_agent_sorts_them_or_the_slowest_first() {
    let target = agent().await;
    let text = |slowest| {
        let args = pods::Args { slowest, target: target.clone() };
        async move { human(async |out| pods::run(&args, &TERMINAL, out).await).await.unwrap() }
    };
    assert_eq!(
        text(false).await,
        "POD               STATE    STARTED                  TOOK  ACCOUNTED  SLOWEST\n\
         default/api-1     started  2026-11-22T03:30:00Z   561 ms     97.6 %  359 ms RunPodSandbox\n\
         default/web-7d9c  started  2026-11-22T03:28:27Z   12.5 s     98.3 %  8.00 s wait for image pull of …\n"
    );
    let slowest = text(true).await;
    assert!(slowest.lines().nth(1).unwrap().starts_with("default/web-7d9c"), "{slowest}");
}

#[tokio::test]
async fn a_pod_is_drawn_or_given_as_the_agent_gave_it() {
    let mut target = agent().await;
    let text = pod_text("default/web-7d9c", &target).await.unwrap();
    assert!(text.starts_with("pod      default/web-7d9c\n"), "{text}");
    target.output = Output::Json;
    let text = pod_text("default/web-7d9c", &target).await.unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value, serde_json::to_value(slow_pull()).unwrap());
}

#[tokio::test]
async fn an_unknown_pod_is_answered_with_close_names() {
    let target = agent().await;
    for (asked, close) in [
        ("default/wbe-7d9c", "; close to it:\n  default/web-7d9c"),
        ("default/api", "; close to it:\n  default/api-1"),
        ("other/web-7d9c", "; close to it:\n  default/web-7d9c"),
        ("kube-system/something-else-entirely", "; `spanlet pods` lists those that were"),
    ] {
        let failure = pod_text(asked, &target).await.unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert_eq!(failure.to_string(), format!("no start of pod {asked} was seen on this node{close}"));
    }
}

#[test]
fn what_is_no_pod_is_refused_before_anything_is_asked() {
    for (text, error) in [
        ("web", "expected NAMESPACE/NAME"),
        ("/web", "expected NAMESPACE/NAME"),
        ("default/", "expected NAMESPACE/NAME"),
        ("a/b/c", "expected NAMESPACE/NAME"),
        ("default/web?x", "a namespace and a pod's name hold only letters, digits, `-` and `.`"),
        ("default/we b", "a namespace and a pod's name hold only letters, digits, `-` and `.`"),
    ] {
        assert_eq!(text.parse::<pod::PodPath>().unwrap_err().to_string(), error, "{text}");
    }
}

#[tokio::test]
async fn calls_are_asked_for_by_method_and_age() {
    let target = agent().await;
    let args = calls::Args {
        method: Some("a/b&c".into()),
        since: Some(std::time::Duration::from_secs(60)),
        follow: false,
        target: target.clone(),
    };
    let text = human(async |out| calls::run(&args, &TERMINAL, out).await).await.unwrap();
    assert_eq!(
        text,
        "METHOD                    POD                           STATUS   REQ WAIT  HANDLING     SEND  RESP WAIT\n\
         b&c                       default/web-7d9c              ok         132 µs    355 ms     0 ns     150 µs\n\
         (unnamed)                 -                             err 4           -         -        -          -\n"
    );
}

#[tokio::test]
async fn top_prints_once_where_there_is_no_terminal() {
    let args = top::Args { once: false, target: agent().await };
    let text = human(async |out| top::run(&args, &TERMINAL, out).await).await.unwrap();
    let lines: Vec<_> = text.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "METHOD          CALLS  RUNNING   FAILED  SLOWEST  IN SERVER  WAITING",
            "every method        1        0        0   355 ms     355 ms   282 µs",
            "(unnamed)           1        0        1        -       0 ns     0 ns",
        ]
    );
}

#[tokio::test]
async fn without_an_agent_it_says_where_and_how_to_start_one() {
    // Bound and let go: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = Target { admin: address, output: Output::Human };
    let failure = pod_text("default/web", &target).await.unwrap_err();
    assert_eq!(failure.exit_code(), 69);
    let text = failure.to_string();
    assert!(text.starts_with(&format!("no agent answers on {address}: ")), "{text}");
    assert!(
        text.ends_with("is it running on this node? `spanlet run` starts it; `--admin` asks another address"),
        "{text}"
    );
}

#[tokio::test]
async fn what_answers_but_is_no_agent_is_named() {
    let router = Router::new().route("/api/v1/pods", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "boom") }));
    let target = Target { admin: serve(router).await, output: Output::Human };
    let args = pods::Args { slowest: false, target: target.clone() };
    let failure = human(async |out| pods::run(&args, &TERMINAL, out).await).await.unwrap_err();
    assert_eq!(failure.to_string(), "the agent answered GET /api/v1/pods with 500 Internal Server Error: boom");
    assert_eq!(failure.exit_code(), 1);

    let args = top::Args { once: true, target: Target { admin: serve(Router::new()).await, output: Output::Human } };
    let failure = human(async |out| top::run(&args, &TERMINAL, out).await).await.unwrap_err();
    assert!(failure.to_string().ends_with("is this address a spanlet agent's admin listener?"), "{failure}");
}

async fn human(command: impl AsyncFnOnce(&mut Vec<u8>) -> Result<(), Failure>) -> Result<String, Failure> {
    let mut out = Vec::new();
    command(&mut out).await?;
    Ok(String::from_utf8(out).expect("text"))
}

async fn pod_text(pod: &str, target: &Target) -> Result<String, Failure> {
    let args = pod::Args { pod: pod.parse().unwrap(), all: false, target: target.clone() };
    human(async |out| pod::run(&args, &TERMINAL, out).await).await
}

/// An agent that has seen two pods and two calls.
async fn agent() -> Target {
    let slow = slow_pull();
    let quick = json!({
        "namespace": "default", "name": "api-1", "uid": "u", "state": "started",
        "started_at": "2026-11-22T03:30:00.000000000Z", "duration_seconds": 0.561, "accounted_ratio": 0.9767,
        "slowest": { "name": "runtime.v1.RuntimeService/RunPodSandbox", "seconds": 0.3587 },
    });
    let pods = json!([quick, slow.summary]);
    let router = Router::new()
        .route("/api/v1/pods", get(|| async { Json(pods) }))
        .route("/api/v1/pods/default/web-7d9c", get(|| async { Json(slow) }))
        .route("/api/v1/calls", get(recent_calls));
    Target { admin: serve(router).await, output: Output::Human }
}

/// Shows in the first call's method what was asked for.
async fn recent_calls(Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let value = |key| query.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value);
    let since_ns: u64 = value("since").parse().expect("Unix nanoseconds");
    assert!(since_ns > 1_700_000_000_000_000_000);
    let call = |method: Option<String>, pod: Value, status: u8, phases: [Option<u64>; 4]| {
        json!({
            "connection": 1, "stream": 51, "method": method, "naming": "wire", "traceparent": null, "status": status,
            "pod": pod, "sandbox_id": null, "container_id": null, "request_wait_ns": phases[0],
            "handling_ns": phases[1], "response_send_ns": phases[2], "response_wait_ns": phases[3],
            "client_pid": 1, "server_pid": 2,
        })
    };
    let web = json!({ "namespace": "default", "name": "web-7d9c", "uid": "u" });
    let asked = Some(value("method")).filter(|method| !method.is_empty()).unwrap_or("every method").to_owned();
    let phases = [Some(132_000), Some(355_159_000), Some(0), Some(150_000)];
    Json(json!([call(Some(asked), web, 0, phases), call(None, Value::Null, 4, [None; 4]),]))
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    address
}
