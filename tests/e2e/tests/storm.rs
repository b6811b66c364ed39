//! Storms of calls of every kind: each is told exactly once and as its client knows it, whatever happens to client, server and
//! the agent meanwhile; or it is counted as lost.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use rustix::process::Signal;
use spanlet::api::CaptureState;
use spanlet_e2e::Turn;
use spanlet_node::storm::{Options, Outcome, Report, Storm, imbalances};
use spanlet_node::upstream::{Keep, Upstream};

/// The kill switch looks at 10 s, and the agent's status is asked now and then.
const KILL_SWITCH_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_a_storm_is_told_exactly() {
    let Some(_turn) = Turn::take().await else { return };
    let mut storm = Storm::start(&Options { seed: 11, ..Options::default() }).await.unwrap();
    storm.make(1_000, 40).await.unwrap();
    let report = exact(storm.finish().await.unwrap());
    for outcome in ["succeeded", "failed", "reset", "cancelled", "expired"] {
        assert!(report.outcomes[outcome] > 0, "no call {outcome}");
    }
    assert_eq!(report.outcomes.get("unsure"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_at_a_time_on_one_connection_are_told_exactly() {
    let Some(_turn) = Turn::take().await else { return };
    let mut storm = Storm::start(&Options { seed: 19, ..Options::default() }).await.unwrap();
    storm.make(600, 100).await.unwrap();
    let report = exact(storm.finish().await.unwrap());
    assert_eq!(report.events.seen["opened"], 1, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_threads_hide_no_call() {
    let Some(_turn) = Turn::take().await else { return };
    let options = Options { seed: 12, blocked: 64, connections: 3, ..Options::default() };
    let mut storm = Storm::start(&options).await.unwrap();
    storm.make(500, 100).await.unwrap();
    exact(storm.finish().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_over_new_connections_after_goaway() {
    let Some(_turn) = Turn::take().await else { return };
    let options = Options { seed: 13, connections: 2, goaway_every: 50, ..Options::default() };
    let mut storm = Storm::start(&options).await.unwrap();
    storm.make(600, 40).await.unwrap();
    let report = exact(storm.finish().await.unwrap());
    assert!(report.events.seen["opened"] > 6, "{report}");
    assert!(report.events.seen["goaway"] > 6, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_killed_leaves_its_open_calls_failed() {
    let Some(_turn) = Turn::take().await else { return };
    let mut storm = Storm::start(&Options { seed: 14, connections: 2, ..Options::default() }).await.unwrap();
    storm.hang(10).await.unwrap();
    storm.begin(400, 40).await.unwrap();
    storm.over(150).await.unwrap();
    storm.restart_server().await.unwrap();
    storm.done().await.unwrap();
    storm.make(200, 40).await.unwrap();
    let report = exact(storm.finish().await.unwrap());
    assert_eq!(report.outcomes["abandoned"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_is_killed_leaves_its_open_calls_failed() {
    let Some(_turn) = Turn::take().await else { return };
    let mut storm = Storm::start(&Options { seed: 15, ..Options::default() }).await.unwrap();
    storm.make(100, 40).await.unwrap();
    storm.hang(10).await.unwrap();
    storm.restart_client().await.unwrap();
    storm.make(200, 40).await.unwrap();
    // Where the probes do not see a process die, the agent looks for connections that are gone every 10 s, and twice.
    let report = exact(storm.finish().await.unwrap());
    assert_eq!(report.outcomes["abandoned"], 10);
}

/// The ring is the smallest there is, and eight connections are written to in parallel; for a while nobody empties it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_smallest_ring_loses_is_counted_to_the_last_event() {
    let Some(_turn) = Turn::take().await else { return };
    let options = Options { seed: 18, connections: 8, ring_bytes: Some(4096), ..Options::default() };
    let mut storm = Storm::start(&options).await.unwrap();
    storm.make(200, 40).await.unwrap();
    storm.agent().signal(Signal::STOP).unwrap();
    storm.make(300, 40).await.unwrap();
    storm.agent().signal(Signal::CONT).unwrap();
    storm.lost().await.unwrap();
    let report = storm.finish().await.unwrap();
    assert!(report.holds(false), "{report}");
    for kind in ["headers", "data_end", "read", "field"] {
        let lost: u64 = report.events.lost.iter().filter(|loss| loss.kind == kind).map(|loss| loss.count).sum();
        assert!(lost > 0, "no {kind} was lost: {report}");
    }
}

/// For a while nobody empties the ring; what comes later fits into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_full_ring_calls_are_told_again() {
    let Some(_turn) = Turn::take().await else { return };
    let options = Options { seed: 16, connections: 4, ring_bytes: Some(64 << 10), ..Options::default() };
    let mut storm = Storm::start(&options).await.unwrap();
    storm.make(20, 1).await.unwrap();
    storm.agent().signal(Signal::STOP).unwrap();
    storm.make(500, 40).await.unwrap();
    storm.agent().signal(Signal::CONT).unwrap();
    let overflowed = storm.facts().len();
    storm.lost().await.unwrap();
    storm.settled().await.unwrap();
    storm.make(100, 1).await.unwrap();
    let later: Vec<_> = storm.facts()[overflowed..].to_vec();
    let calls = storm.told(&later).await.unwrap();
    for (call, fact) in calls.iter().zip(&later) {
        assert_eq!((call.method.as_ref(), call.naming.as_str()), (Some(&fact.method), "wire"), "{fact:?}");
        // The header tables are not known any more: of an error only the shape may be.
        let succeeded = fact.outcome == Outcome::Answered(0);
        assert_eq!(call.status == Some(0), succeeded, "{call:?} was {fact:?}");
    }
    let report = storm.finish().await.unwrap();
    assert!(report.holds(false), "{report}");
    assert!(report.events_lost > 500 && report.gaps["track_lost"] > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_cost_too_much_are_detached_and_that_is_said() {
    let Some(_turn) = Turn::take().await else { return };
    let upstream = Upstream::start(Keep::Ids).unwrap();
    let endpoint = Some(upstream.endpoint());
    let options = Options { seed: 17, max_cpu_ratio: Some(0.000_001), endpoint, ..Options::default() };
    let mut storm = Storm::start(&options).await.unwrap();
    let deadline = tokio::time::Instant::now() + KILL_SWITCH_TIMEOUT;
    let reasons = loop {
        storm.make(50, 10).await.unwrap();
        let status = storm.agent().status().await.unwrap();
        if status.capture.state == CaptureState::Off {
            break status.capture.reasons.join("; ");
        }
        assert!(tokio::time::Instant::now() < deadline, "still attached");
    };
    assert!(reasons.contains("capture.max_cpu_ratio"), "{reasons}");
    send_span(&storm.agent().ports().otlp_endpoint()).await;
    until(|| upstream.received().span_count() == 1).await;
    assert_eq!(imbalances(&storm.agent().status().await.unwrap().events), [""; 0]);
    let metrics = storm.agent().metrics().await.unwrap();
    let cost_seconds: f64 = metrics
        .lines()
        .filter_map(|line| {
            line.strip_prefix("spanlet_probe_run_seconds_total{")?.split_once("} ")?.1.parse::<f64>().ok()
        })
        .sum();
    assert!(cost_seconds > 0.0, "{metrics}");
}

async fn send_span(endpoint: &str) {
    let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "span".to_owned(), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let request =
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
    let mut client = TraceServiceClient::connect(endpoint.to_owned()).await.unwrap();
    client.export(request).await.unwrap();
}

/// Waits until something happens that another process does.
async fn until(happened: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + KILL_SWITCH_TIMEOUT;
    while !happened() {
        assert!(tokio::time::Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn exact(report: Report) -> Report {
    assert!(report.holds(true), "{report}");
    report
}
