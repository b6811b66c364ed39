//! A stream joined anywhere is read from its next frame on.

mod support;

use proptest::prelude::*;
use spanlet_http2::connection::{Direction, Endpoint, Event};
use spanlet_http2::limits::{DEFAULT_FRAME_BYTES, RESYNC_CHAIN};
use spanlet_http2::resync::{self, Resync};
use support::frames;
use support::{RECORDINGS, Recording, frame_offsets};

#[test]
fn from_any_octet_of_the_recordings_the_next_frame_is_found() {
    for name in RECORDINGS {
        let recording = Recording::load(name);
        for sender in [Endpoint::Client, Endpoint::Server] {
            let octets = recording.sent_by(sender);
            let frames = frame_offsets(octets, sender);
            let last_provable = frames[frames.len() - RESYNC_CHAIN as usize];
            // A spread; the steps are prime, so that joins fall on every part of a frame.
            for join in (0..octets.len()).step_by(if octets.len() > 100_000 { 211 } else { 37 }) {
                let next_frame = frames.iter().copied().find(|frame| *frame >= join);
                let expected = next_frame.filter(|frame| *frame <= last_provable);
                let found = resync::find(&octets[join..], DEFAULT_FRAME_BYTES).map(|at| at + join);
                assert_eq!(found, expected, "{name} {sender:?} joined at {join}");
            }
        }
    }
}

#[test]
fn a_direction_joined_inside_a_frame_reads_on_and_is_never_wrong() {
    let recording = Recording::load("k134-c17-1");
    for sender in [Endpoint::Client, Endpoint::Server] {
        let octets = recording.sent_by(sender);
        let truth = recording.header_lists(sender);
        let join = octets.len() / 3;
        let mut direction = Direction::late(sender);
        let mut blocks = 0;
        for piece in octets[join..].chunks(100) {
            let on_event = |event: Event<'_>| {
                if let Event::Headers { frame_offset, list, .. } = event {
                    let truth = &truth[&(frame_offset + join as u64)];
                    for (field, (_, value)) in list.fields().iter().zip(truth) {
                        assert!(field.value.known().is_none_or(|known| known == value.as_bytes()));
                    }
                    blocks += 1;
                }
            };
            direction.feed(piece, on_event).unwrap();
        }
        assert!(!direction.is_resynchronising());
        assert_eq!(blocks, truth.range(join as u64..).count());
    }
}

#[test]
fn a_gap_is_survived() {
    let recording = Recording::load("k134-c17-1");
    let truth = recording.header_lists(Endpoint::Client);
    let (gap_start, gap_end) = (5_001, 7_777);
    let mut direction = Direction::new(Endpoint::Client);
    let mut after_gap = Vec::new();
    direction.feed(&recording.client[..gap_start], |_| {}).unwrap();
    direction.lose_track((gap_end - gap_start) as u64);
    direction
        .feed(&recording.client[gap_end..], |event| {
            if let Event::Headers { frame_offset, .. } = event {
                after_gap.push(frame_offset);
            }
        })
        .unwrap();
    let expected: Vec<u64> = truth.range(gap_end as u64..).map(|(offset, _)| *offset).collect();
    assert_eq!(after_gap, expected, "offsets still count from the first octet");
    assert_eq!(direction.counters().lost_track, 1);
}

#[test]
fn a_chain_must_obey_continuation() {
    let settled = [frames::ping(), frames::ping(), frames::ping(), frames::ping()].concat();
    let block_interrupted = [frames::headers_begun(1, b"abc"), settled.clone()].concat();
    assert_eq!(resync::find(&block_interrupted, DEFAULT_FRAME_BYTES), Some(12));
    let joined_inside_a_block = [frames::continuation(4, 1, b"abc"), settled].concat();
    assert_eq!(resync::find(&joined_inside_a_block, DEFAULT_FRAME_BYTES), Some(0));
}

proptest! {
    /// Pieces change nothing.
    #[test]
    fn pieces_of_any_size(join in 0_usize..50_000, sizes in prop::collection::vec(1_usize..2_000, 1..20)) {
        let recording = Recording::load("k134-c17-1");
        let octets = &recording.server[join..];
        let mut resync = Resync::new(join as u64, DEFAULT_FRAME_BYTES);
        let (mut rest, mut sizes) = (octets, sizes.iter().cycle());
        let mut found = None;
        while found.is_none() && !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().expect("a cycle has no end")));
            rest = after;
            found = resync.push(piece).map(|boundary| {
                let start = boundary.offset as usize;
                assert_eq!(boundary.octets, &recording.server[start..recording.server.len() - rest.len()]);
                start - join
            });
        }
        prop_assert_eq!(found, resync::find(octets, DEFAULT_FRAME_BYTES));
    }
}
