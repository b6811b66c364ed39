//! What goes out: batches, retries, refusals, and upstreams that hang, die and come back.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::support::{agent, client, ledger_at_rest, ledger_when, spans, spans_with_text};
use crate::upstream::{Script, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn headers_compression_and_deadline_reach_upstream() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("gzip: true, timeout: 7s, headers: {authorization: Bearer token}")).await;
    client(&agent).await.export(spans_with_text(0, 100, "some text")).await.unwrap();
    let came = upstream.spans(100).await;
    assert_eq!(came.len(), 100);
    let metadata = upstream.metadata();
    let text = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(text("authorization").as_deref(), Some("Bearer token"));
    assert_eq!(text("grpc-encoding").as_deref(), Some("gzip"));
    assert_eq!(text("grpc-timeout").as_deref(), Some("7000m"));
    assert!(text("user-agent").unwrap().starts_with("spanlet/"));
    ledger_at_rest(&agent, 100).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_requests_are_merged_and_large_ones_split() {
    let upstream = Upstream::start().await;
    let agent =
        agent(&format!("export: {{endpoint: 'http://{}', batch_delay: 2s, batch_spans: 50}}", upstream.address)).await;
    let mut client = client(&agent).await;
    for number in 0..50 {
        client.export(spans(number, 1)).await.unwrap();
    }
    upstream.spans(50).await;
    assert_eq!(upstream.batches(), [50], "one request when the batch is full, long before its delay");

    // 10 MB: more than the 4 MiB that a grpc-go server takes.
    client.export(spans_with_text(1_000, 100, &"x".repeat(100_000))).await.unwrap();
    let came = upstream.spans(150).await;
    assert!(came.values().all(|times| *times == 1));
    assert_eq!(upstream.batches().len(), 4, "{:?}", upstream.batches());
    let ledger = ledger_at_rest(&agent, 150).await;
    assert_eq!(ledger.exported, 150);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retryable_refusals_lose_nothing() {
    let throttled = ErrorDetails::with_retry_info(Some(Duration::from_millis(50)));
    let script: Vec<Script> = [
        Status::unavailable("restarting"),
        Status::aborted("again"),
        Status::deadline_exceeded("slow"),
        Status::with_error_details(Code::ResourceExhausted, "throttled", throttled),
    ]
    .into_iter()
    .map(Script::Refuse)
    .collect();
    let upstream = Upstream::scripted(&script).await;
    let agent = agent(&upstream.export("")).await;
    client(&agent).await.export(spans(0, 10)).await.unwrap();
    let came = upstream.spans(10).await;
    assert!(came.values().all(|times| *times == 1));
    assert_eq!(upstream.calls(), 5);
    let ledger = ledger_at_rest(&agent, 10).await;
    assert_eq!((ledger.exported, ledger.dropped.len()), (10, 0));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn final_refusals_and_rejections_are_counted_by_reason() {
    let refusals =
        [Status::invalid_argument("no"), Status::resource_exhausted("too large"), Status::unauthenticated("who")];
    let script: Vec<Script> = refusals.into_iter().map(Script::Refuse).chain([Script::Reject(3)]).collect();
    let upstream = Upstream::scripted(&script).await;
    let agent = agent(&upstream.export("")).await;
    let mut client = client(&agent).await;
    for request in 0..5 {
        client.export(spans(request * 10, 10)).await.unwrap();
        // One request at a time, so that the script meets them in order.
        ledger_when(&agent, |ledger| ledger.received == (request + 1) * 10 && ledger.held == 0).await;
    }
    assert_eq!(upstream.calls(), 5, "nothing of this is tried again");
    let ledger = ledger_at_rest(&agent, 50).await;
    assert_eq!((ledger.dropped["refused"], ledger.dropped["rejected"], ledger.exported), (30, 3, 17));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_upstream_is_given_up_and_asked_again() {
    let upstream = Upstream::scripted(&[Script::Hang, Script::Hang]).await;
    let agent = agent(&upstream.export("timeout: 100ms")).await;
    client(&agent).await.export(spans(0, 10)).await.unwrap();
    let came = upstream.spans(10).await;
    assert!(came.values().all(|times| *times == 1));
    assert_eq!(upstream.calls(), 3);
    ledger_at_rest(&agent, 10).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_and_returns_gets_everything() {
    let first = Upstream::start().await;
    let address = first.address;
    let agent = agent(&first.export("")).await;
    let mut client = client(&agent).await;
    client.export(spans(0, 10)).await.unwrap();
    first.spans(10).await;
    ledger_at_rest(&agent, 10).await;
    first.die().await;

    for request in 1..100 {
        client.export(spans(request * 10, 10)).await.unwrap();
    }
    let ledger = ledger_when(&agent, |ledger| ledger.received == 1_000).await;
    assert_eq!((ledger.exported, ledger.held), (10, 990), "all of it waits");
    let second = Upstream::start_at(address, &[]).await;
    let came = second.spans(990).await;
    assert_eq!((came.len(), came.values().sum::<u32>()), (990, 990));
    let ledger = ledger_at_rest(&agent, 1_000).await;
    assert_eq!(ledger.exported, 1_000);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_sends_what_is_held_and_counts_what_upstream_does_not_take() {
    let upstream = Upstream::start().await;
    let endpoint = format!("endpoint: 'http://{}', batch_delay: 1m", upstream.address);
    let patient = agent(&format!("export: {{{endpoint}}}")).await;
    client(&patient).await.export(spans(0, 10)).await.unwrap();
    let metrics = patient.metrics().clone();
    patient.stop().await;
    assert_eq!(upstream.accepted(), 10, "the batch delay does not outlive the agent");
    assert_eq!(metrics.spans().exported, 10);

    upstream.always(Some(Script::Hang));
    let hasty = agent(&format!("export: {{{endpoint}, drain_timeout: 200ms}}")).await;
    client(&hasty).await.export(spans(0, 10)).await.unwrap();
    let metrics = hasty.metrics().clone();
    hasty.stop().await;
    let ledger = metrics.spans();
    assert_eq!((ledger.dropped["shutdown"], ledger.held), (10, 0));
    assert!(ledger.balances(), "{ledger:?}");
}
