//! Every view of every span equals what prost decodes.

mod common;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;
use spanlet_otlp::TraceRequest;

use common::compare::assert_same;
use common::{recordings, requests};

proptest! {
    #[test]
    fn random_requests_read_as_prost_decodes_them(request in requests::request()) {
        let parsed = TraceRequest::parse(Bytes::from(request.encode_to_vec())).unwrap();
        assert_same(&parsed, &request);
    }

    #[test]
    fn doubled_fields_unknown_fields_and_padded_lengths_read_as_prost_decodes_them(
        tree in requests::wire_request(),
        padding in 0..3_usize,
    ) {
        let bytes = Bytes::from(tree.encode_padded(padding));
        let decoded = ExportTraceServiceRequest::decode(bytes.clone()).unwrap();
        assert_same(&TraceRequest::parse(bytes).unwrap(), &decoded);
    }
}

#[test]
fn recorded_requests_read_as_prost_decodes_them() {
    let mut spans = Vec::new();
    for name in recordings::RECORDINGS {
        let mut count = 0;
        for bytes in recordings::requests(name) {
            let decoded = ExportTraceServiceRequest::decode(bytes.clone()).unwrap();
            let request = TraceRequest::parse(bytes).unwrap();
            assert_same(&request, &decoded);
            count += request.span_count();
        }
        spans.push(count);
    }
    assert_eq!(spans, [347, 2321, 487]);
}

#[test]
fn spans_of_recorded_requests_are_indexed_within_their_size() {
    for bytes in recordings::all() {
        let request = TraceRequest::parse(bytes).unwrap();
        assert!(request.memory_bytes() <= 2 * request.encoded_len(), "{request:?}");
    }
}

#[test]
fn strings_that_are_cut_within_a_character_read_up_to_there() {
    // ResourceSpans { ScopeSpans { Span { name: "pod-ü" without its last byte } } }
    let bytes = Bytes::from_static(b"\x0a\x0b\x12\x09\x12\x07\x2a\x05pod-\xc3");
    let request = TraceRequest::parse(bytes.clone()).unwrap();
    assert_eq!(request.span(0).name(), "pod-");
    assert_eq!(request.encode(&spanlet_otlp::Additions::new(&request)), bytes);
}
