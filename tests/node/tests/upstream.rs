//! The fake upstream as an exporter meets it.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spanlet_node::upstream::{Answer, Behaviour, Keep, Upstream};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

#[tokio::test]
async fn accepted_requests_are_kept_as_they_came() {
    let upstream = Upstream::start(Keep::Requests).unwrap();
    let mut client = client(&upstream).await.send_compressed(CompressionEncoding::Gzip);
    let mut request = tonic::Request::new(request(1..=3));
    request.metadata_mut().insert("x-test", "yes".parse().unwrap());
    client.export(request).await.unwrap();

    let received = upstream.received();
    assert_eq!((received.span_count(), received.duplicate_count(), received.refused_count()), (3, 0, 0));
    let [kept] = received.requests().try_into().unwrap();
    assert_eq!(kept.body, Bytes::from(self::request(1..=3).encode_to_vec()));
    assert_eq!(kept.headers.get("x-test").unwrap(), "yes");
    assert_eq!(received.spans(), self::request(1..=3).resource_spans[0].scope_spans[0].spans);
}

#[tokio::test]
async fn a_span_that_comes_twice_is_a_duplicate() {
    let upstream = Upstream::start(Keep::Ids).unwrap();
    let mut client = client(&upstream).await;
    client.export(request(1..=3)).await.unwrap();
    client.export(request(3..=4)).await.unwrap();
    let received = upstream.received();
    assert_eq!((received.span_count(), received.duplicate_count()), (5, 1));
    assert!(received.requests().is_empty());
}

#[tokio::test]
async fn refusals_carry_code_and_retry_info() {
    let upstream = Upstream::start(Keep::Requests).unwrap();
    let retry_after = Some(Duration::from_millis(1500));
    let answer = Answer::Refuse { code: tonic::Code::ResourceExhausted, retry_after };
    upstream.behave(Behaviour { delay: Duration::ZERO, answer });
    let status = client(&upstream).await.export(request(1..=2)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, retry_after);
    assert_eq!((upstream.received().span_count(), upstream.received().refused_count()), (0, 1));
}

#[tokio::test]
async fn a_dead_upstream_comes_back_on_its_port() {
    let mut upstream = Upstream::start(Keep::Requests).unwrap();
    let endpoint = upstream.endpoint();
    let mut client = client(&upstream).await;
    client.export(request(1..=1)).await.unwrap();
    upstream.die();
    assert!(client.export(request(2..=2)).await.is_err());
    upstream.revive().unwrap();
    assert_eq!(upstream.endpoint(), endpoint);
    client.export(request(3..=3)).await.unwrap();
    assert_eq!(upstream.received().span_count(), 2);
}

#[tokio::test]
async fn requests_go_to_a_file_one_after_the_other() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let upstream = Upstream::start(Keep::File(file.reopen().unwrap())).unwrap();
    let mut client = client(&upstream).await;
    client.export(request(1..=2)).await.unwrap();
    client.export(request(3..=3)).await.unwrap();
    let mut bytes = Bytes::from(std::fs::read(file.path()).unwrap());
    assert_eq!(ExportTraceServiceRequest::decode_length_delimited(&mut bytes).unwrap(), request(1..=2));
    assert_eq!(ExportTraceServiceRequest::decode_length_delimited(&mut bytes).unwrap(), request(3..=3));
    assert!(bytes.is_empty());
}

async fn client(upstream: &Upstream) -> TraceServiceClient<Channel> {
    TraceServiceClient::connect(upstream.endpoint()).await.unwrap()
}

fn request(ids: std::ops::RangeInclusive<u8>) -> ExportTraceServiceRequest {
    let spans = ids.map(|id| Span { trace_id: vec![id; 16], span_id: vec![id; 8], ..Default::default() }).collect();
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}
