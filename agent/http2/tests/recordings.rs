//! Recorded CRI connections decode to what an independent implementation made of them, in whatever pieces they arrive.

mod support;

use proptest::prelude::*;
use spanlet_http2::Exactness;
use spanlet_http2::connection::{Counters, Endpoint, Reader};
use support::{RECORDINGS, Recording, Streams, read_connection};

fn assert_decodes(recording: &Recording, at_most: usize) {
    let (reader, streams) = read_connection(recording.pieces(at_most));
    assert_eq!(streams.into_json(), recording.decoded);
    for sender in [Endpoint::Client, Endpoint::Server] {
        let direction = reader.direction(sender);
        assert_eq!(direction.decoder().exactness(), Exactness::Exact);
        let blocks = recording.header_lists(sender).len() as u64;
        let expected =
            Counters { hpack: spanlet_http2::hpack::Counters { blocks, ..Default::default() }, ..Default::default() };
        assert_eq!(direction.counters(), expected, "nothing was lost or refused");
    }
}

#[test]
fn the_chunks_as_recorded() {
    for name in RECORDINGS {
        assert_decodes(&Recording::load(name), usize::MAX);
    }
}

#[test]
fn one_octet_at_a_time() {
    for name in RECORDINGS {
        assert_decodes(&Recording::load(name), 1);
    }
}

#[test]
fn settings_and_nothing_else_beside_the_calls() {
    for name in RECORDINGS {
        let (_, streams) = read_connection(Recording::load(name).pieces(usize::MAX));
        let (settings, resets): (Vec<_>, Vec<_>) = streams.others.iter().partition(|event| event.contains("Settings"));
        assert!(settings.iter().any(|event| event.starts_with("Client Settings(")), "{name}: {settings:?}");
        assert!(settings.iter().any(|event| event.contains("max_frame_bytes: Some(16384)")), "{name}: {settings:?}");
        assert!(resets.is_empty(), "{name}: {resets:?}");
    }
}

#[test]
fn a_direction_alone_needs_no_other() {
    let recording = Recording::load("k134-c17-1");
    let mut reader = Reader::new();
    let mut streams = Streams::default();
    reader.feed(Endpoint::Client, &recording.client, |event| streams.observe(Endpoint::Client, &event)).unwrap();
    for (stream, expected) in streams.into_json().iter().zip(&recording.decoded) {
        assert_eq!(stream["req_headers"], expected["req_headers"]);
        assert_eq!(stream["req_msg"], expected["req_msg"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any cuts, and any order of the directions that keeps SETTINGS before what they allow (here: none allows anything).
    #[test]
    fn any_other_chunks(
        recording in prop::sample::select(&RECORDINGS[..]),
        sizes in prop::collection::vec((any::<bool>(), 1_usize..3000), 1..64),
    ) {
        let recording = Recording::load(recording);
        let mut left = [&recording.client[..], &recording.server[..]];
        let mut pieces = Vec::new();
        let mut sizes = sizes.iter().cycle();
        while left.iter().any(|octets| !octets.is_empty()) {
            let &(from_client, size) = sizes.next().expect("a cycle has no end");
            let client_is_next = left[1].is_empty() || (from_client && !left[0].is_empty());
            let sender = if client_is_next { Endpoint::Client } else { Endpoint::Server };
            let (piece, rest) = left[sender as usize].split_at(size.min(left[sender as usize].len()));
            left[sender as usize] = rest;
            pieces.push((sender, piece));
        }
        let (_, streams) = read_connection(pieces.into_iter());
        prop_assert_eq!(streams.into_json(), recording.decoded);
    }
}
