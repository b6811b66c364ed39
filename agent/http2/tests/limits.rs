//! Each cap of `limits`: what is just within it passes, what is beyond is refused and counted, and decoding goes on.

mod support;

use spanlet_http2::connection::{Direction, Endpoint, Event};
use spanlet_http2::frame::{FrameReader, FrameType, Invalid, ReadError, Step, flag};
use spanlet_http2::hpack::{DecodeError, Malformed};
use spanlet_http2::limits::*;
use spanlet_http2::resync::Resync;
use spanlet_http2::{BlockError, Decoder, HeaderBlocks};
use support::encoder::{integer, string};
use support::frames::{self, header};

fn size_update(size_bytes: usize) -> Vec<u8> {
    let mut block = Vec::new();
    integer(&mut block, 0x20, 5, size_bytes);
    block
}

/// Literal with incremental indexing.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x40];
    string(&mut block, name, false);
    string(&mut block, value, false);
    block
}

#[test]
fn max_table_bytes() {
    assert!(Decoder::new().decode(&size_update(MAX_TABLE_BYTES)).is_ok());
    let beyond = DecodeError::Malformed(Malformed::SizeUpdateTooLarge(MAX_TABLE_BYTES as u64 + 1));
    assert_eq!(Decoder::new().decode(&size_update(MAX_TABLE_BYTES + 1)), Err(beyond));

    let mut announced_more = Decoder::new();
    announced_more.set_size_limit_bytes(usize::MAX);
    assert_eq!(announced_more.decode(&size_update(MAX_TABLE_BYTES + 1)), Err(beyond));
    assert_eq!(announced_more.counters().malformed, 1);
}

#[test]
fn max_string_bytes() {
    let mut decoder = Decoder::new();
    decoder.decode(&literal(b"old", b"entry")).unwrap();
    for huffman in [false, true] {
        let mut block = vec![0x00, 0x01, b'n'];
        string(&mut block, &vec![b'0'; MAX_STRING_BYTES + 1], huffman);
        let list = decoder.decode(&block).unwrap();
        assert_eq!((list.fields().len(), list.refused()), (0, 1));
    }
    assert_eq!(decoder.counters().strings_refused, 2);
    assert!(decoder.decode(&[0x80 | 62]).is_ok(), "without indexing, the table stays");

    let longest = decoder.decode(&literal(b"", &vec![b'0'; MAX_STRING_BYTES - ENTRY_OVERHEAD_BYTES])).unwrap();
    assert_eq!(longest.fields().len(), 1);
    let list = decoder.decode(&literal(b"n", &vec![b'0'; MAX_STRING_BYTES + 1])).unwrap();
    assert_eq!(list.refused(), 1);
    assert!(decoder.decode(&[0x80 | 62]).is_err(), "an entry larger than the table empties it (RFC 7541 §4.4)");
}

#[test]
fn max_header_list_bytes() {
    let mut decoder = Decoder::new();
    let half = vec![b'0'; MAX_HEADER_LIST_BYTES / 2 - ENTRY_OVERHEAD_BYTES - 1];
    let mut block = [literal(b"a", &half), literal(b"b", &half)].concat();
    assert_eq!(decoder.decode(&block).unwrap().fields().len(), 2);
    block.extend(literal(b"c", b"kept in the table"));
    let list = decoder.decode(&block).unwrap();
    assert_eq!((list.fields().len(), list.refused()), (2, 1));
    assert_eq!(decoder.counters().fields_refused, 1);
    let list = decoder.decode(&[0x80 | 62]).unwrap();
    assert!(list.value(b"c").is_some(), "a refused field still counts for the table");
}

#[test]
fn max_fields() {
    let mut decoder = Decoder::new();
    let list = decoder.decode(&[0x82; MAX_FIELDS]).unwrap();
    assert_eq!((list.fields().len(), list.refused()), (MAX_FIELDS, 0));
    let list = decoder.decode(&[0x82; MAX_FIELDS + 3]).unwrap();
    assert_eq!((list.fields().len(), list.refused()), (MAX_FIELDS, 3));
    assert_eq!(decoder.counters().fields_refused, 3);
}

#[test]
fn max_integer_continuations() {
    let continued = |octets: u32| [vec![0xff], vec![0x80; octets as usize - 1], vec![0x00]].concat();
    let in_time = Decoder::new().decode(&continued(MAX_INTEGER_CONTINUATIONS));
    assert_eq!(in_time, Err(DecodeError::Malformed(Malformed::Index(127))));
    let too_late = Decoder::new().decode(&continued(MAX_INTEGER_CONTINUATIONS + 1));
    assert_eq!(too_late, Err(DecodeError::Malformed(Malformed::IntegerTooLarge)));
}

#[test]
fn max_block_bytes() {
    let mut blocks = HeaderBlocks::new();
    let (first, rest) = (header(FrameType::Headers, 0, 1, 0), header(FrameType::Continuation, flag::END_HEADERS, 1, 0));
    let most = vec![0; MAX_BLOCK_BYTES];
    assert_eq!(blocks.push(&first, &most), Ok(None));
    assert!(blocks.push(&rest, &[]).unwrap().is_some());
    assert_eq!(blocks.push(&first, &most), Ok(None));
    assert_eq!(blocks.push(&rest, &[0]), Err(BlockError::TooLarge));
    assert_eq!(blocks.push(&first, &vec![0; MAX_BLOCK_BYTES + 1]), Err(BlockError::TooLarge));
    assert_eq!(blocks.push(&rest, &[]), Ok(None), "the rest of a refused block is passed over");
    assert_eq!(blocks.counters().too_large, 2);
}

/// A frame that alone is too large is not kept at all; the data around it is read.
#[test]
fn max_block_bytes_of_one_frame() {
    let mut direction = Direction::joined_at(Endpoint::Client, 0);
    direction.peer_sent(&Event::Settings(spanlet_http2::connection::Settings {
        max_frame_bytes: Some(MAX_FRAME_BYTES),
        header_table_bytes: None,
    }));
    let octets = [
        frames::frame(1, 0, 1, &vec![0x82; 2 * MAX_BLOCK_BYTES]),
        frames::continuation(flag::END_HEADERS, 1, &[0x82]),
        frames::data(flag::END_STREAM, 1, b"abc"),
        frames::headers(0, 3, &[0x82]),
    ]
    .concat();
    let mut events = Vec::new();
    direction.feed(&octets, |event| events.push(format!("{event:?}"))).unwrap();
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(events[0].contains("TooLarge") && events[1].starts_with("Data") && events[2].starts_with("Headers {"));
    assert_eq!(direction.counters().blocks.too_large, 1);
}

#[test]
fn max_continuations() {
    let mut blocks = HeaderBlocks::new();
    let more = header(FrameType::Continuation, 0, 1, 0);
    assert_eq!(blocks.push(&header(FrameType::Headers, 0, 1, 0), &[]), Ok(None));
    for _ in 0..MAX_CONTINUATIONS {
        assert_eq!(blocks.push(&more, &[]), Ok(None));
    }
    assert_eq!(blocks.push(&more, &[]), Err(BlockError::TooManyContinuations));
    assert_eq!(blocks.push(&more, &[]), Ok(None));
    assert_eq!(blocks.counters().too_many_continuations, 1);
}

#[test]
fn frame_bytes() {
    let read = |length: u32, max_bytes: Option<u32>| {
        let mut reader = FrameReader::joined_at(0);
        max_bytes.inspect(|max_bytes| reader.set_max_frame_bytes(*max_bytes));
        let [_, l0, l1, l2] = length.to_be_bytes();
        reader.read(&mut &[l0, l1, l2, 0, 0, 0, 0, 0, 1][..]).map(|step| matches!(step, Step::Frame { .. }))
    };
    let too_long = Err(ReadError::Malformed(Invalid::TooLong));
    assert_eq!(read(DEFAULT_FRAME_BYTES, None), Ok(true));
    assert_eq!(read(DEFAULT_FRAME_BYTES + 1, None), too_long);
    assert_eq!(read(DEFAULT_FRAME_BYTES, Some(0)), Ok(true), "SETTINGS cannot ask for less (RFC 9113 §6.5.2)");
    assert_eq!(read(100_000, Some(100_000)), Ok(true));
    assert_eq!(read(100_001, Some(100_000)), too_long);
    assert_eq!(read(MAX_FRAME_BYTES, Some(u32::MAX)), Ok(true));
}

#[test]
fn max_streams() {
    let mut direction = Direction::joined_at(Endpoint::Client, 0);
    for stream in 0..MAX_STREAMS as u32 {
        direction.feed(&frames::data(0, 2 * stream + 1, b"abc"), |_| {}).unwrap();
    }
    assert_eq!(direction.counters().streams_evicted, 0);
    let one_more = 2 * MAX_STREAMS as u32 + 1;
    let mut offsets = Vec::new();
    for stream_id in [one_more, 1, one_more] {
        let on_event = |event: Event<'_>| match event {
            Event::Data { stream_offset, .. } => offsets.push(stream_offset),
            other => panic!("{other:?}"),
        };
        direction.feed(&frames::data(0, stream_id, b"abc"), on_event).unwrap();
    }
    assert_eq!(offsets, [0, 0, 3], "stream 1, the oldest, was forgotten");
    assert_eq!(direction.counters().streams_evicted, 2);
}

#[test]
fn max_settings() {
    let mut direction = Direction::joined_at(Endpoint::Server, 0);
    let mut parameters = vec![(3, 100); MAX_SETTINGS - 1];
    parameters.push((5, 20_000));
    let mut seen = Vec::new();
    for last in [None, Some((5, 30_000))] {
        parameters.extend(last);
        let on_event = |event: Event<'_>| match event {
            Event::Settings(settings) => seen.push(settings.max_frame_bytes),
            other => panic!("{other:?}"),
        };
        direction.feed(&frames::settings(&parameters), on_event).unwrap();
    }
    assert_eq!(seen, [Some(20_000), Some(20_000)], "what is beyond the limit is not read");
    assert_eq!(direction.counters().settings_refused, 1);
}

#[test]
fn resync_chain() {
    let frames = frames::ping().repeat(RESYNC_CHAIN as usize);
    assert_eq!(spanlet_http2::resync::find(&frames, DEFAULT_FRAME_BYTES), Some(0));
    let one_header_less = &frames[..frames.len() - 9];
    assert_eq!(spanlet_http2::resync::find(one_header_less, DEFAULT_FRAME_BYTES), None);
}

#[test]
fn resync_window_bytes() {
    let mut resync = Resync::new(0, DEFAULT_FRAME_BYTES);
    assert_eq!(resync.push(&vec![0xff; RESYNC_WINDOW_BYTES]), None);
    assert_eq!(resync.dropped_bytes(), 0);
    assert_eq!(resync.push(&vec![0xff; 2 * RESYNC_WINDOW_BYTES]), None);
    assert!(resync.dropped_bytes() >= 2 * RESYNC_WINDOW_BYTES as u64, "{}", resync.dropped_bytes());
    let boundary = resync.push(&frames::ping().repeat(5)).expect("it goes on looking");
    assert_eq!(boundary.offset, 3 * RESYNC_WINDOW_BYTES as u64);
}
