//! Compares what this crate reads with what prost decodes.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProstValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as ProstSpan;
use prost::Message;
use spanlet_otlp::{Attributes, Span, TraceRequest, Value};

/// Panics unless every view of every span equals what prost decoded.
pub fn assert_same(request: &TraceRequest, decoded: &ExportTraceServiceRequest) {
    assert_eq!(request.resource_count(), decoded.resource_spans.len());
    let mut spans = request.spans();
    for (index, resource_spans) in decoded.resource_spans.iter().enumerate() {
        let attributes = resource_spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        assert_attributes(request.resource(index).attributes(), attributes);
        for attribute in attributes {
            let first = attributes.iter().find(|other| other.key == attribute.key).expect("itself at least");
            assert_value(request.resource(index).attribute(&attribute.key).expect("is there"), first.value.as_ref());
        }
        for scope_spans in &resource_spans.scope_spans {
            let scope_name = scope_spans.scope.as_ref().map_or("", |scope| &scope.name);
            for expected in &scope_spans.spans {
                let span = spans.next().expect("as many spans as prost");
                assert_eq!(span.resource(), index);
                assert_eq!(span.scope_name(), scope_name);
                assert_span(&span, expected);
            }
        }
    }
    assert!(spans.next().is_none(), "no more spans than prost");
}

fn assert_span(span: &Span<'_>, expected: &ProstSpan) {
    assert_eq!(span.trace_id(), id::<16>(&expected.trace_id));
    assert_eq!(span.span_id(), id::<8>(&expected.span_id));
    assert_eq!(span.parent_span_id().unwrap_or_default(), id::<8>(&expected.parent_span_id));
    assert_ne!(span.parent_span_id(), Some([0; 8]));
    assert_eq!(span.name(), expected.name);
    assert_eq!(span.kind() as i32, if (0..=5).contains(&expected.kind) { expected.kind } else { 0 });
    assert_eq!(span.start_unix_nano(), expected.start_time_unix_nano);
    assert_eq!(span.end_unix_nano(), expected.end_time_unix_nano);
    let status = expected.status.clone().unwrap_or_default();
    assert_eq!(i32::from(span.status_code()), if (0..=255).contains(&status.code) { status.code } else { 0 });
    assert_eq!(span.status_message(), status.message);
    assert_attributes(span.attributes(), &expected.attributes);

    let events: Vec<_> = span.events().collect();
    assert_eq!(events.len(), expected.events.len());
    for (event, expected) in events.iter().zip(&expected.events) {
        assert_eq!((event.name, event.time_unix_nano), (expected.name.as_str(), expected.time_unix_nano));
        assert_attributes(event.attributes(), &expected.attributes);
    }
    let links: Vec<_> = span.links().collect();
    assert_eq!(links.len(), expected.links.len());
    for (link, expected) in links.iter().zip(&expected.links) {
        assert_eq!((link.trace_id, link.span_id), (id(&expected.trace_id), id(&expected.span_id)));
        assert_attributes(link.attributes(), &expected.attributes);
    }
}

fn assert_attributes(attributes: Attributes<'_>, expected: &[KeyValue]) {
    let attributes: Vec<_> = attributes.collect();
    assert_eq!(attributes.len(), expected.len());
    for ((key, value), expected) in attributes.into_iter().zip(expected) {
        assert_eq!(key, expected.key);
        assert_value(value, expected.value.as_ref());
    }
}

fn assert_value(value: Value<'_>, expected: Option<&AnyValue>) {
    match (value, expected.and_then(|value| value.value.as_ref())) {
        (Value::Str(value), Some(ProstValue::StringValue(expected))) => assert_eq!(value, expected),
        (Value::Int(value), Some(ProstValue::IntValue(expected))) => assert_eq!(value, *expected),
        (Value::Bool(value), Some(ProstValue::BoolValue(expected))) => assert_eq!(value, *expected),
        (Value::Double(value), Some(ProstValue::DoubleValue(expected))) => {
            assert_eq!(value.to_bits(), expected.to_bits());
        }
        (Value::Bytes(value), Some(ProstValue::BytesValue(expected))) => assert_eq!(value, expected),
        (Value::Other(encoded), None) => assert!(encoded.is_empty()),
        (
            Value::Other(encoded),
            Some(ProstValue::ArrayValue(_) | ProstValue::KvlistValue(_) | ProstValue::StringValueStrindex(_)),
        ) => assert!(AnyValue::decode(encoded).expect("an AnyValue").value.is_some()),
        (value, expected) => panic!("{value:?} is not {expected:?}"),
    }
}

fn id<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    bytes.try_into().unwrap_or([0; LEN])
}
