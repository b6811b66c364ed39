//! Replacing an attribute of a resource changes that attribute and nothing else.

mod common;

use bytes::Bytes;
use common::recordings;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use spanlet_otlp::{Additions, TraceRequest};

#[test]
fn the_value_is_another_and_all_else_stays() {
    for value in ["x", "containerd-shim", &"long ".repeat(100)] {
        for bytes in recordings::all() {
            let request = TraceRequest::parse(bytes.clone()).unwrap();
            let mut additions = Additions::new(&request);
            let mut expected = ExportTraceServiceRequest::decode(bytes).unwrap();
            for (index, resource) in expected.resource_spans.iter_mut().enumerate() {
                assert!(additions.resource_replace_str(&request, index, "service.name", value));
                additions.resource_str(index, "added", "too");
                let attributes = &mut resource.resource.as_mut().unwrap().attributes;
                attributes.retain(|attribute| attribute.key != "service.name");
                attributes.extend([text("service.name", value), text("added", "too")]);
            }
            let encoded = request.encode(&additions);
            assert_eq!(ExportTraceServiceRequest::decode(encoded).unwrap(), expected);
        }
    }
}

#[test]
fn what_is_not_there_is_not_replaced() {
    let bytes = recordings::all().remove(0);
    let request = TraceRequest::parse(bytes.clone()).unwrap();
    let mut additions = Additions::new(&request);
    assert!(!additions.resource_replace_str(&request, 0, "no.such.key", "x"));
    assert!(additions.is_empty());
    assert_eq!(request.encode(&additions), bytes);
}

#[test]
fn replaced_twice_it_goes_once() {
    // One ResourceSpans with one Resource of one attribute `k`=`old`.
    let bytes = Bytes::from_static(b"\x0a\x0e\x0a\x0c\x0a\x0a\x0a\x01k\x12\x05\x0a\x03old");
    let request = TraceRequest::parse(bytes).unwrap();
    let mut additions = Additions::new(&request);
    assert!(additions.resource_replace_str(&request, 0, "k", "new"));
    assert!(additions.resource_replace_str(&request, 0, "k", "newer"));
    let encoded = ExportTraceServiceRequest::decode(request.encode(&additions)).unwrap();
    let attributes = &encoded.resource_spans[0].resource.as_ref().unwrap().attributes;
    assert_eq!(attributes, &[text("k", "new"), text("k", "newer")]);
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
