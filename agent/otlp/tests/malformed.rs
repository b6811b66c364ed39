//! Bad input never panics, and is refused exactly when prost refuses it, except that strings need not be UTF-8.

mod common;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use spanlet_otlp::{Additions, Fault, MAX_ENTRIES, MAX_NESTING, ParseError, TraceRequest, split};

use common::compare::assert_same;
use common::{recordings, requests};

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..300)) {
        check(&Bytes::from(bytes));
    }

    /// Small numbers make tags and lengths that go deep into messages.
    #[test]
    fn arbitrary_small_bytes(bytes in vec(0..24_u8, 0..120)) {
        check(&Bytes::from(bytes));
    }

    #[test]
    fn mutated_random_requests(tree in requests::wire_request(), changes in vec((any::<Index>(), any::<u8>()), 1..6)) {
        check(&mutated(tree.encode(), &changes));
    }

    #[test]
    fn mutated_recordings(request in any::<Index>(), changes in vec((any::<Index>(), any::<u8>()), 1..6)) {
        check(&mutated(request.get(&recordings::all()).to_vec(), &changes));
    }

    #[test]
    fn truncated_recordings(request in any::<Index>(), end in any::<Index>()) {
        let requests = recordings::all();
        let request = request.get(&requests);
        check(&request.slice(..end.index(request.len())));
    }
}

/// Usual attributes are told by a few of their bytes; no change to any byte may pass for one.
#[test]
fn every_change_of_one_byte_of_attributes() {
    let request = b"\x0a\x2b\x12\x29\x12\x27\
        \x4a\x08\x0a\x01k\x12\x03\x0a\x01v\
        \x4a\x07\x0a\x01b\x12\x02\x10\x01\
        \x4a\x08\x0a\x02in\x12\x02\x18\x07\
        \x4a\x08\x0a\x01l\x12\x03\x18\x80\x01";
    let request = &request[..];
    assert_eq!(TraceRequest::parse(Bytes::from_static(request)).unwrap().span(0).attributes().count(), 4);
    for at in 0..request.len() {
        for value in 0..=u8::MAX {
            let mut changed = request.to_vec();
            changed[at] = value;
            check(&Bytes::from(changed));
        }
    }
}

/// The first of the two bytes of a length prefix may equal the length of what follows.
#[test]
fn long_length_prefixes_that_look_like_short_ones() {
    for len in 0..=u8::MAX {
        let content = vec![b'a'; usize::from(len)];
        for string_prefix in [0x0a, 0x12] {
            let any_value = [&[string_prefix, len][..], &content].concat();
            for value_len in [any_value.len() as u8, len] {
                let key_value = [&[0x0a, 1, b'k', 0x12, value_len][..], &any_value].concat();
                check(&Bytes::from([1, 2, 2, 9].iter().rev().fold(key_value, |body, number| field(*number, &body))));
            }
        }
    }
}

#[test]
fn errors_say_what_and_where() {
    let cases: [(&[u8], &str, usize, Fault); 14] = [
        (b"\x0a\x05\x12", "ExportTraceServiceRequest", 0, Fault::Truncated),
        (b"\x0a\x02\x12\x01", "ResourceSpans", 2, Fault::Truncated),
        (b"\x0a\x04\x12\x02\x12\x7f", "ScopeSpans", 4, Fault::Truncated),
        (b"\x0a\x06\x12\x04\x12\x02\x39\x00", "Span", 6, Fault::Truncated),
        (b"\x0a\x06\x12\x04\x12\x02\x08\x01", "Span", 6, Fault::WireType),
        (b"\x0a\x06\x12\x04\x12\x02\x4a\x01", "Span", 6, Fault::Truncated),
        (b"\x0a\x08\x12\x06\x12\x04\x4a\x02\x0a\x01", "KeyValue", 8, Fault::Truncated),
        (b"\x0a\x0a\x12\x08\x12\x06\x4a\x04\x12\x02\x08\x01", "AnyValue", 10, Fault::WireType),
        (b"\x0a\x04\x0a\x02\x0a\x01", "Resource", 4, Fault::Truncated),
        (b"\x00\x01", "ExportTraceServiceRequest", 0, Fault::FieldNumber),
        (b"\x80\x80\x80\x80\x10\x01", "ExportTraceServiceRequest", 0, Fault::FieldNumber),
        (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "ExportTraceServiceRequest", 1, Fault::LongVarint),
        (b"\x0a\x01\x1c", "ResourceSpans", 2, Fault::StrayGroupEnd),
        (b"\x0f", "ExportTraceServiceRequest", 0, Fault::WireType),
    ];
    for (bytes, message, offset, fault) in cases {
        let error = TraceRequest::parse(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(error, ParseError { message, offset, fault }, "{bytes:x?}");
        assert!(ExportTraceServiceRequest::decode(bytes).is_err(), "{bytes:x?}");
    }
    let error = TraceRequest::parse(Bytes::from_static(b"\x0a\x02\x12\x01")).unwrap_err();
    assert_eq!(error.to_string(), "read ResourceSpans at byte 2: goes on beyond the end of its message");
}

#[test]
fn lists_nest_as_deep_as_prost_lets_them() {
    // Below the value's AnyValue: pairs of ArrayValue and AnyValue.
    let lists = |pairs: usize, innermost: &[u8]| {
        in_a_span((0..pairs).fold(innermost.to_vec(), |value, _| field(5, &field(1, &value))))
    };
    let most = (MAX_NESTING - ANY_VALUE_NESTING) / 2;
    assert_eq!(ANY_VALUE_NESTING + 2 * most, MAX_NESTING - 1);
    check_nesting(&lists(most, &field(5, &[])), &[lists(most + 1, &[]), lists(5 * MAX_NESTING, &[])]);
}

#[test]
fn maps_nest_as_deep_as_prost_lets_them() {
    // Below the value's AnyValue: triples of KeyValueList, KeyValue and AnyValue.
    let maps = |triples: usize| {
        let string = field(1, b"value");
        in_a_span((0..triples).fold(string, |value, _| {
            let key_value = [field(1, b"key"), field(2, &value)].concat();
            field(6, &field(1, &key_value))
        }))
    };
    let most = (MAX_NESTING - ANY_VALUE_NESTING) / 3;
    assert_eq!(
        ANY_VALUE_NESTING + 3 * (most + 1),
        MAX_NESTING + 1,
        "the first AnyValue too deep is in a KeyValue that is not"
    );
    check_nesting(&maps(most), &[maps(most + 1), maps(5 * MAX_NESTING)]);
}

#[test]
fn unknown_groups_nest_to_a_limit() {
    // Groups with the number 20: tags 0xa3 0x01 and 0xa4 0x01.
    let groups = |depth: usize| Bytes::from([[0xa3, 1].repeat(depth), [0xa4, 1].repeat(depth)].concat());
    assert!(TraceRequest::parse(groups(MAX_NESTING)).is_ok());
    assert_eq!(TraceRequest::parse(groups(MAX_NESTING + 1)).unwrap_err().fault, Fault::TooDeep);
    assert_eq!(TraceRequest::parse(groups(100 * MAX_NESTING)).unwrap_err().fault, Fault::TooDeep);
}

#[test]
fn entries_are_limited_at_each_level() {
    let request = |nesting: usize, empty: &[u8], times: usize| {
        let body = [1, 2][..nesting].iter().rev().fold(empty.repeat(times), |body, number| field(*number, &body));
        TraceRequest::parse(Bytes::from(body))
    };
    for (nesting, empty, message) in
        [(0, b"\x0a\x00", "ResourceSpans"), (1, b"\x12\x00", "ScopeSpans"), (2, b"\x12\x00", "Span")]
    {
        assert!(request(nesting, empty, MAX_ENTRIES).is_ok(), "{message}");
        let error = request(nesting, empty, MAX_ENTRIES + 1).unwrap_err();
        assert_eq!((error.message, error.fault), (message, Fault::TooMany));
    }
}

/// How many messages an attribute's `AnyValue` lies in, counted below the request: `ResourceSpans`, `ScopeSpans`, `Span`,
/// `KeyValue` and itself.
const ANY_VALUE_NESTING: usize = 5;

/// A request with one span that has an attribute of this value (an encoded `AnyValue`).
fn in_a_span(value: Vec<u8>) -> Bytes {
    Bytes::from([1, 2, 2, 9, 2].iter().rev().fold(value, |body, number| field(*number, &body)))
}

/// A length-prefixed field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn check_nesting(accepted: &Bytes, refused: &[Bytes]) {
    check(accepted);
    assert_eq!(TraceRequest::parse(accepted.clone()).map(|request| request.span_count()), Ok(1));
    for refused in refused {
        check(refused);
        assert_eq!(TraceRequest::parse(refused.clone()).unwrap_err().fault, Fault::TooDeep);
    }
}

/// Reads, edits and splits what is accepted, and compares with prost.
fn check(bytes: &Bytes) {
    let decoded = ExportTraceServiceRequest::decode(bytes.clone());
    match (TraceRequest::parse(bytes.clone()), decoded) {
        (Ok(request), Ok(decoded)) => {
            assert_same(&request, &decoded);
            exercise(&request, bytes);
        }
        (Ok(request), Err(error)) => {
            assert!(error.to_string().contains("not UTF-8"), "prost refuses {bytes:x?}: {error}");
            exercise(&request, bytes);
        }
        (Err(error), Ok(_)) => panic!("prost accepts {bytes:x?}: {error}"),
        (Err(error), Err(_)) => assert!(error.offset <= bytes.len(), "{error}"),
    }
}

fn exercise(request: &TraceRequest, bytes: &Bytes) {
    let mut additions = Additions::new(request);
    for (index, span) in request.spans().enumerate() {
        let read = span.attributes().count() + span.events().map(|event| event.attributes().count()).sum::<usize>();
        additions.span_int(index, "read", read as i64);
        additions.span_str(index, "again", span.name());
        additions.span_str(index, "message", span.status_message());
    }
    for resource in 0..request.resource_count() {
        additions.resource_str(resource, "again", "and again");
    }
    let edited = TraceRequest::parse(request.encode(&additions)).expect("as well-formed as before");
    assert_eq!(edited.span_count(), request.span_count());
    let parts = split(bytes.clone(), 2, usize::MAX).expect("parsed before");
    let spans: usize = parts.map(|part| TraceRequest::parse(part).expect("a request").span_count()).sum();
    assert_eq!(spans, request.span_count());
}

fn mutated(mut bytes: Vec<u8>, changes: &[(Index, u8)]) -> Bytes {
    for (index, (at, value)) in changes.iter().enumerate() {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match (index % 3, value) {
            (0, value) => bytes[at] = *value,
            (1, 0..128) => drop(bytes.remove(at)),
            (1, value) => bytes.insert(at, *value),
            _ => bytes[at] = bytes[at].wrapping_add(*value % 3).wrapping_sub(1),
        }
    }
    Bytes::from(bytes)
}
