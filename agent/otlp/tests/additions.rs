//! Encoding adds what was to be added, and leaves every other byte as it came.

mod common;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProstValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use prost::encoding::message;
use spanlet_otlp::{Additions, TraceRequest, Value};

use common::tree::{Kind, Message, Node};
use common::{recordings, requests};

/// What a test adds, and where.
#[derive(Debug, Clone)]
enum Addition {
    SpanStr(Index, String, String),
    SpanInt(Index, String, i64),
    SpanBool(Index, String, bool),
    SpanLink(Index, [u8; 16], [u8; 8]),
    ResourceStr(Index, String, String),
}

proptest! {
    #[test]
    fn additions_are_appended_and_nothing_else_changes(
        tree in requests::wire_request(),
        additions in vec(addition(), 0..20),
    ) {
        let bytes = Bytes::from(tree.encode());
        let request = TraceRequest::parse(bytes).unwrap();
        let mut expected = tree;
        let made = make(&request, &additions, &mut expected);
        prop_assert_eq!(request.encode(&made), expected.encode());
    }

    #[test]
    fn prost_decodes_the_original_and_the_additions_whatever_the_length_prefixes(
        tree in requests::wire_request(),
        additions in vec(addition(), 0..20),
        padding in 0..8_usize,
    ) {
        let request = TraceRequest::parse(Bytes::from(tree.encode_padded(padding))).unwrap();
        let mut expected = tree;
        let made = make(&request, &additions, &mut expected);
        let encoded = request.encode(&made);
        prop_assert_eq!(
            ExportTraceServiceRequest::decode(encoded.clone()).unwrap(),
            ExportTraceServiceRequest::decode(expected.encode().as_slice()).unwrap()
        );
        prop_assert_eq!(Message::parse(Kind::Request, &encoded), expected);
    }
}

#[test]
fn recorded_requests_keep_every_byte_around_the_additions() {
    for bytes in recordings::all() {
        let request = TraceRequest::parse(bytes.clone()).unwrap();
        let mut additions = Additions::new(&request);
        let mut expected = Message::parse(Kind::Request, &bytes);
        for (index, span) in expected.spans_mut().enumerate().step_by(3) {
            additions.span_str(index, "k8s.pod.name", "web-0");
            additions.span_int(index, "spanlet.call.handling_ns", index as i64);
            span.nodes.push(attribute(9, "k8s.pod.name", ProstValue::StringValue("web-0".to_owned())));
            span.nodes.push(attribute(9, "spanlet.call.handling_ns", ProstValue::IntValue(index as i64)));
        }
        for (index, resource_spans) in expected.children_mut(Kind::ResourceSpans).enumerate() {
            additions.resource_str(index, "k8s.node.name", "node-1");
            let resource = resource_spans.children_mut(Kind::Resource).next().expect("each recorded request has one");
            resource.nodes.push(attribute(1, "k8s.node.name", ProstValue::StringValue("node-1".to_owned())));
        }
        assert_eq!(request.encode(&additions), expected.encode());
    }
}

#[test]
fn without_additions_the_same_bytes_are_shared() {
    for bytes in recordings::all() {
        let request = TraceRequest::parse(bytes.clone()).unwrap();
        let additions = Additions::new(&request);
        assert!(additions.is_empty());
        let encoded = request.encode(&additions);
        assert_eq!((encoded.as_ptr(), encoded.len()), (bytes.as_ptr(), bytes.len()));
    }
}

#[test]
fn a_missing_resource_is_made_for_its_attributes() {
    let request = TraceRequest::parse(Bytes::from_static(b"\x0a\x04\x12\x02\x12\x00")).unwrap();
    let mut additions = Additions::new(&request);
    additions.resource_str(0, "k", "v");
    assert_eq!(request.encode(&additions), &b"\x0a\x10\x0a\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v\x12\x02\x12\x00"[..]);
}

#[test]
#[should_panic(expected = "additions of another request")]
fn additions_of_another_request_are_refused() {
    let [first, .., last] = &recordings::all()[..] else { panic!("more than one recorded request") };
    let request = TraceRequest::parse(first.clone()).unwrap();
    let other = TraceRequest::parse(last.clone()).unwrap();
    request.encode(&Additions::new(&other));
}

fn addition() -> impl Strategy<Value = Addition> {
    let at = any::<Index>;
    let text = || prop_oneof!["[a-z.]{0,12}", "[a-z]{110,140}"];
    let key = || prop_oneof!["[a-z.]{1,12}", "[a-z]{110,140}"]; // prost leaves out empty ones
    prop_oneof![
        (at(), key(), text()).prop_map(|(at, key, value)| Addition::SpanStr(at, key, value)),
        (at(), key(), any::<i64>()).prop_map(|(at, key, value)| Addition::SpanInt(at, key, value)),
        (at(), key(), any::<bool>()).prop_map(|(at, key, value)| Addition::SpanBool(at, key, value)),
        (at(), any::<[u8; 16]>(), any::<[u8; 8]>())
            .prop_map(|(at, trace_id, span_id)| Addition::SpanLink(at, trace_id, span_id)),
        (at(), key(), text()).prop_map(|(at, key, value)| Addition::ResourceStr(at, key, value)),
    ]
}

/// Makes the additions that the request has spans and resources for, and puts the same into the tree.
fn make(request: &TraceRequest, wanted: &[Addition], tree: &mut Message) -> Additions {
    let (spans, resources) = (request.span_count(), request.resource_count());
    let mut additions = Additions::new(request);
    for addition in wanted {
        match addition {
            Addition::SpanStr(at, key, value) if spans > 0 => {
                additions.span_str(at.index(spans), key, value);
                let value = ProstValue::StringValue(value.clone());
                push_to_span(tree, at.index(spans), attribute(9, key, value));
            }
            Addition::SpanInt(at, key, value) if spans > 0 => {
                additions.span_int(at.index(spans), key, *value);
                push_to_span(tree, at.index(spans), attribute(9, key, ProstValue::IntValue(*value)));
            }
            Addition::SpanBool(at, key, value) if spans > 0 => {
                additions.span_bool(at.index(spans), key, *value);
                push_to_span(tree, at.index(spans), attribute(9, key, ProstValue::BoolValue(*value)));
            }
            Addition::SpanLink(at, trace_id, span_id) if spans > 0 => {
                additions.span_link(at.index(spans), *trace_id, *span_id);
                let link = Link { trace_id: trace_id.to_vec(), span_id: span_id.to_vec(), ..Link::default() };
                push_to_span(tree, at.index(spans), node(Kind::Span, 13, &link));
            }
            Addition::ResourceStr(at, key, value) if resources > 0 => {
                additions.resource_str(at.index(resources), key, value);
                let attribute = attribute(1, key, ProstValue::StringValue(value.clone()));
                push_to_resource(tree, at.index(resources), attribute);
            }
            _ => {}
        }
    }
    additions
}

fn push_to_span(tree: &mut Message, index: usize, node: Node) {
    tree.spans_mut().nth(index).expect("within span_count").nodes.push(node);
}

/// To the last resource, or to a new first one.
fn push_to_resource(tree: &mut Message, index: usize, node: Node) {
    let resource_spans = tree.children_mut(Kind::ResourceSpans).nth(index).expect("within resource_count");
    if let Some(resource) = resource_spans.children_mut(Kind::Resource).last() {
        resource.nodes.push(node);
    } else {
        resource_spans.nodes.insert(0, Node::Message(1, Message { kind: Kind::Resource, nodes: vec![node] }));
    }
}

/// A `KeyValue` in the field `number` of a span (9) or of a resource (1).
fn attribute(number: u32, key: &str, value: ProstValue) -> Node {
    let value = Some(AnyValue { value: Some(value) });
    let parent = if number == 9 { Kind::Span } else { Kind::Resource };
    node(parent, number, &KeyValue { key: key.to_owned(), value, ..KeyValue::default() })
}

/// The field `number` of a message of kind `parent`, as prost encodes it. Members of a oneof keep their zero, as with us.
fn node(parent: Kind, number: u32, content: &impl prost::Message) -> Node {
    let mut encoded = Vec::new();
    message::encode(number, content, &mut encoded);
    Message::parse(parent, &encoded).nodes.remove(0)
}

#[test]
fn what_is_shared_is_told_to_each_in_its_place() {
    let span = || Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span(), span(), span()], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    let bytes = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    let request = TraceRequest::parse(bytes.into()).unwrap();
    let mut additions = Additions::new(&request);
    let shared = additions.span_attributes_shared(0, [("a", Value::Int(1)), ("b", Value::Str("two"))]);
    additions.span_int(0, "own", 0); // right behind what is shared
    additions.span_int(2, "before", 2);
    additions.span_shared(2, shared);
    additions.span_int(2, "after", 2);
    additions.span_shared(1, shared);
    let encoded = ExportTraceServiceRequest::decode(request.encode(&additions)).unwrap();
    let keys = encoded.resource_spans[0].scope_spans[0]
        .spans
        .iter()
        .map(|span| span.attributes.iter().map(|attribute| attribute.key.as_str()).collect::<Vec<_>>().join(" "));
    assert_eq!(keys.collect::<Vec<_>>(), ["a b own", "a b", "before a b after"]);
}
