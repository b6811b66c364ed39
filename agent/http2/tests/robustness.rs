//! No octets make a public entry panic, and no octets make it keep more than its limits.

mod support;

use proptest::prelude::*;
use spanlet_http2::connection::{Direction, Endpoint, Reader};
use spanlet_http2::frame::{FrameHeader, FrameReader, Step, data_padding, header_fragment};
use spanlet_http2::limits::{DEFAULT_FRAME_BYTES, MAX_FIELDS, RESYNC_WINDOW_BYTES};
use spanlet_http2::resync::{self, Resync};
use spanlet_http2::{Decoder, HeaderBlocks, grpc_timeout};
use support::{RECORDINGS, Recording};

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

proptest! {
    #[test]
    fn frames_and_payloads(octets in octets(), client in any::<bool>()) {
        for mut reader in [FrameReader::client(), FrameReader::server(), FrameReader::joined_at(u64::from(client))] {
            let mut input = &octets[..];
            while let Ok(step) = reader.read(&mut input) {
                if step == Step::NeedMore { break }
            }
        }
        if let Some((header, payload)) = octets.split_first_chunk::<9>() {
            let header = FrameHeader::parse(header);
            let _ = header.validate(DEFAULT_FRAME_BYTES);
            let _ = resync::is_plausible(&header, DEFAULT_FRAME_BYTES);
            let _ = header_fragment(&header, payload);
            let _ = data_padding(header.length, header.flags);
        }
    }

    #[test]
    fn header_blocks(frames in prop::collection::vec((0_u8..11, any::<u8>(), 0_u32..4, octets()), 0..20)) {
        let mut blocks = HeaderBlocks::new();
        for (frame_type, flags, stream_id, payload) in &frames {
            let frame_type = spanlet_http2::frame::FrameType::from_octet(*frame_type);
            let _ = blocks.push(&support::frames::header(frame_type, *flags, *stream_id, payload.len()), payload);
        }
    }

    #[test]
    fn blocks_of_any_octets(blocks in prop::collection::vec(octets(), 1..6), late in any::<bool>()) {
        let mut decoder = if late { Decoder::late() } else { Decoder::new() };
        for block in &blocks {
            match decoder.decode(block) {
                Ok(list) => {
                    prop_assert!(list.fields().len() <= MAX_FIELDS);
                    for field in list.fields() {
                        field.value.unknown().map(|id| decoder.learn(id, b"n", block));
                    }
                }
                Err(_) => decoder.restart_late(),
            }
        }
    }

    #[test]
    fn timeouts(value in prop::collection::vec(any::<u8>(), 0..12)) {
        let _ = grpc_timeout::parse(&value);
    }

    #[test]
    fn connections_of_any_octets(octets in octets(), late in any::<bool>(), from_client in any::<bool>()) {
        let mut reader = if late { Reader::late() } else { Reader::new() };
        let sender = if from_client { Endpoint::Client } else { Endpoint::Server };
        let _ = reader.feed(sender, &octets, |_| {});
        reader.direction_mut(sender).lose_track(octets.len() as u64);
        let _ = reader.feed(sender, &octets, |_| {});
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nearly right octets reach further than random ones.
    #[test]
    fn recordings_with_flipped_octets(
        name in prop::sample::select(&RECORDINGS[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        piece in 1_usize..5000,
    ) {
        let recording = Recording::load(name);
        for sender in [Endpoint::Client, Endpoint::Server] {
            let mut octets = recording.sent_by(sender).to_vec();
            for (at, octet) in &flips {
                octets[at.index(recording.sent_by(sender).len())] = *octet;
            }
            let mut direction = Direction::new(sender);
            for piece in octets.chunks(piece) {
                if direction.feed(piece, |_| {}).is_err() {
                    direction.lose_track(0);
                }
            }
        }
    }

    #[test]
    fn looking_for_a_boundary_keeps_a_window(octet in any::<u8>(), pieces in prop::collection::vec(1_usize..40_000, 1..12)) {
        let mut resync = Resync::new(0, DEFAULT_FRAME_BYTES);
        let mut pushed = 0;
        for piece in pieces {
            pushed += piece as u64;
            prop_assert_eq!(resync.push(&vec![octet; piece]), None);
            let kept = resync.end_offset() - resync.dropped_bytes();
            prop_assert!(kept <= (RESYNC_WINDOW_BYTES + DEFAULT_FRAME_BYTES as usize) as u64);
        }
        prop_assert_eq!(resync.end_offset(), pushed);
    }
}
