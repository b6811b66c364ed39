//! Random requests.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::tree::{Kind, Message, Node};

/// Requests as prost's types have them.
pub fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    vec(resource_spans(), 0..4).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// Requests as they may come on the wire: with unknown fields anywhere, and with messages that are given in two pieces, so
/// that singular fields come twice and merge.
pub fn wire_request() -> impl Strategy<Value = Message> {
    (request(), vec(any::<prop::sample::Index>(), 64), vec(unknown_field(), 8)).prop_map(
        |(request, places, unknown)| {
            let mut tree = Message::parse(Kind::Request, &request.encode_to_vec());
            let mut places = places.iter().cycle();
            let mut unknown = unknown.iter().cycle();
            tree.for_each(&mut |message| {
                melt(message, places.next().expect("endless"));
                let place = places.next().expect("endless").index(2 * message.nodes.len() + 1);
                if place <= message.nodes.len() {
                    message.nodes.insert(place, unknown.next().expect("endless").clone());
                }
            });
            tree
        },
    )
}

/// Makes one message of two neighbours with the same number.
fn melt(message: &mut Message, place: &prop::sample::Index) {
    let place = place.index(4 * message.nodes.len() + 1);
    if let Some([Node::Message(first, one), Node::Message(second, other)]) = message.nodes.get_mut(place..place + 2)
        && first == second
    {
        one.nodes.append(&mut other.nodes);
        message.nodes.remove(place + 1);
    }
}

/// A field whose number no OTLP message has, of every wire type.
fn unknown_field() -> impl Strategy<Value = Node> {
    let number = prop_oneof![20_u32..40, 1000_u32..1010, Just((1 << 29) - 1)];
    (number, 0..5_u8, any::<u64>(), any::<u8>()).prop_map(|(number, shape, value, len)| {
        use prost::encoding::{self, WireType, encode_key};
        let bytes = vec![value as u8; usize::from(len)];
        let mut out = Vec::new();
        match shape {
            0 => encoding::uint64::encode(number, &value, &mut out),
            1 => encoding::fixed64::encode(number, &value, &mut out),
            2 => encoding::fixed32::encode(number, &(value as u32), &mut out),
            3 => encoding::bytes::encode(number, &bytes, &mut out),
            _ => {
                encode_key(number, WireType::StartGroup, &mut out);
                encoding::bytes::encode(3, &bytes, &mut out);
                encode_key(7, WireType::StartGroup, &mut out);
                encoding::uint64::encode(1, &value, &mut out);
                encode_key(7, WireType::EndGroup, &mut out);
                encode_key(number, WireType::EndGroup, &mut out);
            }
        }
        Node::Leaf(number, out)
    })
}

fn resource_spans() -> impl Strategy<Value = ResourceSpans> {
    let resource = (vec(key_value(), 0..4), any::<u32>()).prop_map(|(attributes, dropped_attributes_count)| Resource {
        attributes,
        dropped_attributes_count,
        ..Resource::default()
    });
    (option::of(resource), vec(scope_spans(), 0..3), text())
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url })
}

fn scope_spans() -> impl Strategy<Value = ScopeSpans> {
    let scope = (text(), text(), vec(key_value(), 0..2)).prop_map(|(name, version, attributes)| InstrumentationScope {
        name,
        version,
        attributes,
        ..InstrumentationScope::default()
    });
    (option::of(scope), vec(span(), 0..4), text()).prop_map(|(scope, spans, schema_url)| ScopeSpans {
        scope,
        spans,
        schema_url,
    })
}

fn span() -> impl Strategy<Value = Span> {
    let identity = (id(16), id(8), id(8), text(), text());
    let shape = (-1..8_i32, any::<u64>(), any::<u64>(), any::<u32>());
    let content = (vec(key_value(), 0..5), vec(event(), 0..3), vec(link(), 0..3), option::of((text(), -1..4_i32)));
    (identity, shape, content).prop_map(|(identity, shape, content)| {
        let (trace_id, span_id, parent_span_id, name, trace_state) = identity;
        let (kind, start_time_unix_nano, end_time_unix_nano, flags) = shape;
        let (attributes, events, links, status) = content;
        Span {
            trace_id,
            span_id,
            parent_span_id,
            name,
            trace_state,
            kind,
            start_time_unix_nano,
            end_time_unix_nano,
            flags,
            attributes,
            events,
            links,
            status: status.map(|(message, code)| Status { message, code }),
            ..Span::default()
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), text(), vec(key_value(), 0..3)).prop_map(|(time_unix_nano, name, attributes)| Event {
        time_unix_nano,
        name,
        attributes,
        ..Event::default()
    })
}

fn link() -> impl Strategy<Value = Link> {
    (id(16), id(8), vec(key_value(), 0..2)).prop_map(|(trace_id, span_id, attributes)| Link {
        trace_id,
        span_id,
        attributes,
        ..Link::default()
    })
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    (text(), option::weighted(0.95, any_value())).prop_map(|(key, value)| KeyValue {
        key,
        value,
        ..KeyValue::default()
    })
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let scalar = prop_oneof![
        4 => text().prop_map(Value::StringValue),
        2 => any::<i64>().prop_map(Value::IntValue),
        2 => (-3..300_i64).prop_map(Value::IntValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => any::<f64>().prop_map(Value::DoubleValue),
        1 => vec(any::<u8>(), 0..20).prop_map(Value::BytesValue),
        1 => any::<i32>().prop_map(Value::StringValueStrindex),
    ];
    let scalar = option::weighted(0.95, scalar).prop_map(|value| AnyValue { value });
    scalar.prop_recursive(3, 8, 3, |inner| {
        let pair = (text(), inner.clone()).prop_map(|(key, value)| KeyValue {
            key,
            value: Some(value),
            ..KeyValue::default()
        });
        prop_oneof![
            vec(inner, 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(pair, 0..3).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

/// Short texts, and some whose length prefix has two bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-c.é€😀]{0,6}", 4 => "[a-d]", 1 => "[ab]{120,135}"]
}

/// Mostly of the right length.
fn id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), len),
        1 => vec(any::<u8>(), 0..20),
        1 => Just(Vec::new()),
        1 => Just(vec![0; len]),
    ]
}
