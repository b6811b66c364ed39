//! Spans that are built decode as what was asked for.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use spanlet_otlp::build::{self, NewRequest, NewSpan};
use spanlet_otlp::{SpanKind, TraceRequest, merge};

#[test]
fn built_spans_decode_as_asked_for() {
    let mut full = NewSpan::new([1; 16], [2; 8], "exec runc create", SpanKind::Client, 5, 9);
    full.parent([3; 8]);
    full.str("process.executable.name", "runc");
    full.int("process.exit.code", -1);
    full.bool("spanlet.unsampled", true);
    full.bool("spanlet.other", false);
    full.link([4; 16], [5; 8]);
    full.status(build::Status::Error, "exit status 255");
    let bare = NewSpan::new([6; 16], [7; 8], "", SpanKind::Unspecified, 0, 0);

    let mut request = NewRequest::new("spanlet", "0.1.0");
    request.resource_str("service.name", "spanlet");
    request.push(&full);
    let one = request.encoded_len();
    request.push(&bare);
    let encoded = request.encode();

    assert_eq!(request.span_count(), 2);
    assert_eq!(request.encoded_len(), encoded.len());
    assert_eq!(encoded.len(), one + bare.encoded_len(), "the length prefixes around it had two bytes before");
    assert_eq!(ExportTraceServiceRequest::decode(encoded).unwrap(), expected());
}

#[test]
fn a_later_status_and_parent_count() {
    let mut span = NewSpan::new([1; 16], [2; 8], "span", SpanKind::Internal, 1, 2);
    span.parent([3; 8]);
    span.status(build::Status::Error, "failed");
    span.parent([4; 8]);
    span.status(build::Status::Ok, "");
    let mut request = NewRequest::new("spanlet", "");
    request.push(&span);

    let request = TraceRequest::parse(request.encode()).unwrap();
    assert_eq!(request.span(0).parent_span_id(), Some([4; 8]));
    assert_eq!((request.span(0).status_code(), request.span(0).status_message()), (1, ""));
}

#[test]
fn built_requests_merge_with_others() {
    let mut request = NewRequest::new("spanlet", "");
    request.push(&NewSpan::new([1; 16], [2; 8], "a", SpanKind::Internal, 1, 2));
    let merged = TraceRequest::parse(merge(&[request.encode(), request.encode()])).unwrap();
    assert_eq!(merged.spans().map(|span| span.name()).collect::<Vec<_>>(), ["a", "a"]);
    assert_eq!(merged.resource_count(), 2);
}

fn expected() -> ExportTraceServiceRequest {
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let text = |text: &str| Value::StringValue(text.to_owned());
    let full = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        name: "exec runc create".to_owned(),
        kind: 3,
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        attributes: vec![
            attribute("process.executable.name", text("runc")),
            attribute("process.exit.code", Value::IntValue(-1)),
            attribute("spanlet.unsampled", Value::BoolValue(true)),
            attribute("spanlet.other", Value::BoolValue(false)),
        ],
        links: vec![Link { trace_id: vec![4; 16], span_id: vec![5; 8], ..Link::default() }],
        status: Some(Status { code: 2, message: "exit status 255".to_owned() }),
        ..Span::default()
    };
    let bare = Span { trace_id: vec![6; 16], span_id: vec![7; 8], ..Span::default() };
    let scope = InstrumentationScope {
        name: "spanlet".to_owned(),
        version: "0.1.0".to_owned(),
        ..InstrumentationScope::default()
    };
    let resource = Resource { attributes: vec![attribute("service.name", text("spanlet"))], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: vec![full, bare], schema_url: String::new() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}
