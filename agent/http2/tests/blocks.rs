//! Header blocks are put together from HEADERS and CONTINUATION, as the kernel program hands them over.

mod support;

use spanlet_http2::blocks::Counters;
use spanlet_http2::frame::{FrameType, flag};
use spanlet_http2::{BlockError, HeaderBlocks};
use support::frames::header;

const WHOLE: u8 = flag::END_HEADERS;

fn headers(flags: u8, stream_id: u32) -> spanlet_http2::frame::FrameHeader {
    header(FrameType::Headers, flags, stream_id, 0)
}

fn continuation(flags: u8, stream_id: u32) -> spanlet_http2::frame::FrameHeader {
    header(FrameType::Continuation, flags, stream_id, 0)
}

#[test]
fn one_frame_is_not_copied() {
    let mut blocks = HeaderBlocks::new();
    let payload = b"\x01PPPPPblock.";
    let flags = WHOLE | flag::END_STREAM | flag::PADDED | flag::PRIORITY;
    let block = blocks.push(&headers(flags, 5), payload).unwrap().expect("whole");
    assert_eq!((block.stream_id, block.end_stream, block.promise), (5, true, false));
    assert!(matches!(block.octets, std::borrow::Cow::Borrowed(b"block")));
}

#[test]
fn continuations_are_joined_and_flags_are_those_of_headers() {
    let mut blocks = HeaderBlocks::new();
    assert_eq!(blocks.push(&headers(flag::END_STREAM | flag::PADDED, 7), b"\x02ab.."), Ok(None));
    assert_eq!(blocks.push(&continuation(0, 7), b"cd"), Ok(None));
    let block = blocks.push(&continuation(WHOLE, 7), b"e").unwrap().expect("whole");
    assert_eq!((block.stream_id, block.end_stream, &block.octets[..]), (7, true, &b"abcde"[..]));
    assert!(blocks.push(&headers(WHOLE, 9), b"f").unwrap().is_some(), "ready for the next");
    assert_eq!(blocks.counters(), Counters::default());
}

#[test]
fn a_promise_is_a_block_too() {
    let promise = header(FrameType::PushPromise, WHOLE, 1, 0);
    let block = HeaderBlocks::new().push(&promise, b"\0\0\0\x02abc").unwrap().expect("whole");
    assert!(block.promise && !block.end_stream);
    assert_eq!(&block.octets[..], b"abc");
}

#[test]
fn other_frames_pass() {
    let mut blocks = HeaderBlocks::new();
    for frame_type in [FrameType::Data, FrameType::Settings, FrameType::Ping, FrameType::Unknown(99)] {
        assert_eq!(blocks.push(&header(frame_type, 0, 1, 0), b"anything"), Ok(None));
    }
}

#[test]
fn what_breaks_a_block_is_said_once_and_counted() {
    // After HEADERS without END_HEADERS on stream 1:
    for (then, expected) in [
        (continuation(0, 3), BlockError::UnexpectedContinuation),
        (header(FrameType::Data, 0, 1, 0), BlockError::Interrupted),
        (header(FrameType::Ping, 0, 0, 0), BlockError::Interrupted),
        (headers(WHOLE, 3), BlockError::Interrupted),
    ] {
        let mut blocks = HeaderBlocks::new();
        assert_eq!(blocks.push(&headers(0, 1), b"ab"), Ok(None));
        assert_eq!(blocks.push(&then, b""), Err(expected), "{then:?}");
        assert_eq!(blocks.counters(), Counters { malformed: 1, ..Default::default() });
        // What still comes of the broken block is passed over.
        if then.frame_type == FrameType::Continuation {
            assert_eq!(blocks.push(&continuation(WHOLE, 3), b""), Ok(None));
        }
        assert!(blocks.push(&headers(WHOLE, 5), b"cd").unwrap().is_some(), "{then:?}");
    }
}

#[test]
fn a_lone_continuation_and_bad_padding_are_malformed() {
    let mut blocks = HeaderBlocks::new();
    assert_eq!(blocks.push(&continuation(WHOLE, 1), b"ab"), Err(BlockError::UnexpectedContinuation));
    assert_eq!(blocks.push(&headers(WHOLE | flag::PADDED, 1), b"\x09ab"), Err(BlockError::Padding));
    assert_eq!(blocks.push(&headers(WHOLE | flag::PRIORITY, 1), b"PPPP"), Err(BlockError::Padding));
    assert_eq!(blocks.counters(), Counters { malformed: 3, ..Default::default() });
}

#[test]
fn after_a_reset_a_begun_block_is_forgotten() {
    let mut blocks = HeaderBlocks::new();
    assert_eq!(blocks.push(&headers(0, 1), b"ab"), Ok(None));
    blocks.reset();
    assert!(blocks.push(&headers(WHOLE, 3), b"cd").unwrap().is_some());
}
