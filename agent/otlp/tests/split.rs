//! Merging and splitting keep every span, and around each what stood around it.

mod common;

use bytes::Bytes;
use proptest::prelude::*;
use spanlet_otlp::{TraceRequest, merge, split};

use common::tree::{Kind, Message, Node};
use common::{recordings, requests};

proptest! {
    #[test]
    fn parts_hold_the_same_spans_in_the_same_context(
        tree in requests::wire_request(),
        max_spans in 0..6_usize,
        max_bytes in prop_oneof![Just(usize::MAX), 0..2000_usize],
        padding in 0..2_usize,
    ) {
        check_split(&Bytes::from(tree.encode_padded(padding)), max_spans, max_bytes);
    }

    #[test]
    fn a_part_is_the_request_without_the_other_spans(tree in requests::wire_request(), max_spans in 1..4_usize) {
        let bytes = Bytes::from(tree.encode());
        let spans = span_count(&bytes);
        prop_assume!(spans > max_spans);
        let mut first = 0;
        for part in split(bytes, max_spans, usize::MAX).unwrap() {
            let last = (first + max_spans).min(spans);
            prop_assert_eq!(part, tree.with_spans(first..last).encode());
            first = last;
        }
        prop_assert_eq!(first, spans);
    }

    #[test]
    fn merged_requests_hold_the_spans_of_all(trees in proptest::collection::vec(requests::wire_request(), 0..4)) {
        let encoded: Vec<Bytes> = trees.iter().map(|tree| Bytes::from(tree.encode())).collect();
        check_merge(&encoded);
    }
}

#[test]
fn recordings_split_and_merge() {
    for name in recordings::RECORDINGS {
        let requests = recordings::requests(name);
        check_merge(&requests);
        let merged = merge(&requests);
        for (max_spans, max_bytes) in
            [(1, usize::MAX), (512, usize::MAX), (usize::MAX, 20_000), (100, 40_000), (9999, 1 << 20)]
        {
            check_split(&merged, max_spans, max_bytes);
        }
    }
}

#[test]
fn what_fits_or_has_no_spans_is_not_copied() {
    for bytes in [recordings::all().remove(0), Bytes::from(vec![0x0a, 0x02, 0x12, 0x00])] {
        let parts: Vec<Bytes> = split(bytes.clone(), 10_000, bytes.len()).unwrap().collect();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].as_ptr(), bytes.as_ptr());
    }
}

#[test]
fn parts_are_as_large_as_the_limits_let_them() {
    let merged = merge(&recordings::requests(recordings::RECORDINGS[1]));
    let spans = TraceRequest::parse(merged.clone()).unwrap().span_count();
    let parts: Vec<usize> = split(merged.clone(), 500, usize::MAX).unwrap().map(|part| span_count(&part)).collect();
    assert_eq!(parts, [500, 500, 500, 500, spans - 2000]);

    let max_bytes = 50_000;
    let parts: Vec<Bytes> = split(merged, usize::MAX, max_bytes).unwrap().collect();
    let largest_span = 4_000; // with the messages around it; recorded ones are shorter
    let (_last, full) = parts.split_last().unwrap();
    assert!(full.iter().all(|part| part.len() > max_bytes - largest_span));
}

#[test]
fn what_is_no_request_is_refused() {
    assert!(split(Bytes::from_static(b"\x0a\x7f"), 1, 1).is_err());
}

fn check_split(bytes: &Bytes, max_spans: usize, max_bytes: usize) {
    let parts: Vec<Bytes> = split(bytes.clone(), max_spans, max_bytes).unwrap().collect();
    let mut spans = Vec::new();
    for part in &parts {
        let count = span_count(part);
        assert!(parts.len() == 1 || count > 0, "no empty part");
        assert!(count <= 1 || count <= max_spans && part.len() <= max_bytes, "{count} spans, {} bytes", part.len());
        spans.extend(context(part));
    }
    assert_eq!(spans, context(bytes));
}

fn check_merge(requests: &[Bytes]) {
    let merged = merge(requests);
    let without_request_fields = |[_, resource, scope, span]: [Vec<Node>; 4]| [resource, scope, span];
    let expected: Vec<_> = requests.iter().flat_map(context).map(without_request_fields).collect();
    let found: Vec<_> = context(&merged).into_iter().map(without_request_fields).collect();
    assert_eq!(found, expected);
}

fn context(bytes: &Bytes) -> Vec<[Vec<Node>; 4]> {
    Message::parse(Kind::Request, bytes).spans_in_context()
}

fn span_count(bytes: &Bytes) -> usize {
    TraceRequest::parse(bytes.clone()).unwrap().span_count()
}
