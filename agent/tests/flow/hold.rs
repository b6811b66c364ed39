//! `correlate.hold`: spans that wait for their pod, where no probes tell it in time.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::support::{agent, client, ledger_at_rest, ledger_when, spans};
use crate::upstream::Upstream;

const PULL: &str = "runtime.v1.ImageService/PullImage";
const LIST: &str = "runtime.v1.RuntimeService/ListContainers";

/// A span of the trace of span 1, and its parent's number.
fn span_of(number: u64, parent: Option<u64>, name: &str, kind: SpanKind) -> ExportTraceServiceRequest {
    let mut request = spans(number, 1);
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    span.trace_id = u128::from(1_u64).to_be_bytes().to_vec();
    span.parent_span_id = parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default();
    (span.name, span.kind) = (name.to_owned(), kind as i32);
    request
}

/// The runtime's span of a call that kubelet made for a pod; nothing in it says for which.
fn pull() -> ExportTraceServiceRequest {
    span_of(3, Some(2), PULL, SpanKind::Server)
}

/// The root of that trace, which kubelet sends when it is over.
fn sync() -> ExportTraceServiceRequest {
    let mut request = span_of(1, None, "syncPod", SpanKind::Internal);
    let told = [("k8s.pod.uid", "u-1"), ("k8s.pod.name", "web"), ("k8s.namespace.name", "default")];
    request.resource_spans[0].scope_spans[0].spans[0].attributes = told.map(|(key, value)| text(key, value)).into();
    request
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn pod_of(span: &Span) -> Option<Value> {
    let name = span.attributes.iter().find(|attribute| attribute.key == "k8s.pod.name");
    name.and_then(|attribute| attribute.value.clone()?.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_waits_for_the_root_that_tells_its_pod() {
    let upstream = Upstream::start().await;
    let agent = agent(&format!("{}\ncorrelate: {{hold: 10m}}", upstream.export(""))).await;
    let mut client = client(&agent).await;
    client.export(pull()).await.unwrap();
    let ledger = ledger_when(&agent, |ledger| ledger.received == 1).await;
    assert_eq!((ledger.held, ledger.exported), (1, 0));
    client.export(sync()).await.unwrap();
    upstream.spans(2).await;
    let last = upstream.last_span();
    assert_eq!((last.name.as_str(), pod_of(&last)), (PULL, Some(Value::StringValue("web".to_owned()))));
    ledger_at_rest(&agent, 2).await;
    let metrics = agent.metrics().render();
    for line in ["spanlet_identity_total{result=\"owned\"} 2", "spanlet_identity_total{result=\"early\"} 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hold_it_passes_early_and_is_counted() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    let mut client = client(&agent).await;
    client.export(pull()).await.unwrap();
    upstream.spans(1).await;
    assert_eq!(pod_of(&upstream.last_span()), None);
    client.export(sync()).await.unwrap();
    ledger_at_rest(&agent, 2).await;
    let early = "spanlet_identity_total{result=\"early\"} 1";
    assert!(agent.metrics().render().lines().any(|line| line == early));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_unknown_leaves_when_its_time_is_over() {
    const HOLD: Duration = Duration::from_millis(300);
    let upstream = Upstream::start().await;
    let agent = agent(&format!("{}\ncorrelate: {{hold: 300ms}}", upstream.export(""))).await;
    let mut client = client(&agent).await;
    let sent = Instant::now();
    client.export(pull()).await.unwrap();
    upstream.spans(1).await;
    assert!(sent.elapsed() >= HOLD, "{:?}", sent.elapsed());
    assert_eq!(pod_of(&upstream.last_span()), None);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_nobodys_does_not_wait() {
    let upstream = Upstream::start().await;
    let agent = agent(&format!("{}\ncorrelate: {{hold: 10m}}", upstream.export(""))).await;
    let mut client = client(&agent).await;
    client.export(span_of(2, None, LIST, SpanKind::Client)).await.unwrap();
    let mut etcd = span_of(4, Some(2), "Get etcd3", SpanKind::Internal);
    etcd.resource_spans[0].resource.as_mut().unwrap().attributes = vec![text("service.name", "apiserver")];
    client.export(etcd).await.unwrap();
    upstream.spans(2).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_sent_when_the_agent_stops() {
    let upstream = Upstream::start().await;
    let agent = agent(&format!("{}\ncorrelate: {{hold: 10m}}", upstream.export(""))).await;
    client(&agent).await.export(pull()).await.unwrap();
    let metrics = agent.metrics().clone();
    agent.stop().await;
    let ledger = metrics.spans();
    assert!(ledger.balances() && ledger.held == 0, "{ledger:?}");
    assert_eq!((upstream.accepted(), ledger.exported), (1, 1));
}
