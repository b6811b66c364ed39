//! Connections made by hand: what the recordings do not contain.

mod support;

use spanlet_http2::connection::{Direction, DirectionError, Endpoint, Event, HeadersLost, Reader, Section};
use spanlet_http2::frame::{CLIENT_PREFACE, PaddingError, flag};
use spanlet_http2::hpack::{DecodeError, Malformed};
use support::frames::*;

use Endpoint::{Client, Server};

/// `:method: GET`, `:status: 200`: one indexed field each.
const GET: &[u8] = &[0x82];
const OK: &[u8] = &[0x88];

/// Size updates to 8,192, 4,096 and 100 octets.
const UPDATE_8192: &[u8] = &[0x3f, 0xe1, 0x3f];
const UPDATE_4096: &[u8] = &[0x3f, 0xe1, 0x1f];
const UPDATE_100: &[u8] = &[0x3f, 0x45];

/// A connection whose SETTINGS have been exchanged.
fn opened() -> Reader {
    let mut reader = Reader::new();
    reader.feed(Client, &[&CLIENT_PREFACE[..], &settings(&[])].concat(), |_| {}).unwrap();
    reader.feed(Server, &[settings(&[(5, 16384)]), settings_ack()].concat(), |_| {}).unwrap();
    reader.feed(Client, &settings_ack(), |_| {}).unwrap();
    reader
}

/// What one direction's octets say, an event a line, without offsets of frames.
fn events(reader: &mut Reader, sender: Endpoint, octets: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    reader.feed(sender, octets, |event| events.push(summary(&event))).unwrap();
    events
}

fn summary(event: &Event<'_>) -> String {
    match *event {
        Event::Headers { stream_id, section, end_stream, list, .. } => {
            format!("{stream_id} {section:?} {} fields{}", list.fields().len(), if end_stream { "." } else { "" })
        }
        Event::Data { stream_id, stream_offset, octets, end_stream, .. } => {
            let text = String::from_utf8_lossy(octets);
            format!("{stream_id} @{stream_offset} {text:?}{}", if end_stream { "." } else { "" })
        }
        Event::HeadersLost { stream_id, reason, .. } => format!("{stream_id} lost: {reason}"),
        ref other => format!("{other:?}"),
    }
}

#[test]
fn a_call_with_interim_response_and_trailers() {
    let mut reader = opened();
    let request = [headers(0, 1, GET), data(0, 1, b"ab"), data(flag::END_STREAM, 1, b"c")].concat();
    assert_eq!(events(&mut reader, Client, &request), ["1 Header 1 fields", "1 @0 \"ab\"", "1 @2 \"c\"."]);
    let response = [headers(0, 1, OK), headers(0, 1, OK), data(0, 1, b"x"), headers(1, 1, OK)].concat();
    let expected = ["1 Header 1 fields", "1 Header 1 fields", "1 @0 \"x\"", "1 Trailer 1 fields."];
    assert_eq!(events(&mut reader, Server, &response), expected);
}

#[test]
fn trailers_only_are_the_header_section() {
    let mut reader = opened();
    assert_eq!(events(&mut reader, Server, &headers(flag::END_STREAM, 1, OK)), ["1 Header 1 fields."]);
}

#[test]
fn padding_is_no_data() {
    let mut reader = opened();
    let padded = [data(flag::PADDED, 1, b"\x02abc.."), data(flag::PADDED | flag::END_STREAM, 1, b"\x03...")].concat();
    assert_eq!(events(&mut reader, Client, &padded), ["1 @0 \"abc\"", "1 @3 \"\"."]);
    let mut one_by_one = Vec::new();
    for octet in data(flag::PADDED | flag::END_STREAM, 3, b"\x02abc..") {
        one_by_one.extend(events(&mut reader, Client, &[octet]));
    }
    assert_eq!(one_by_one, ["3 @0 \"a\"", "3 @1 \"b\"", "3 @2 \"c\"."]);
    assert_eq!(events(&mut reader, Client, &data(flag::END_STREAM, 5, b"")), ["5 @0 \"\"."]);
}

#[test]
fn padding_that_does_not_fit_ends_the_direction_until_it_resynchronises() {
    let mut reader = opened();
    let error = Err(DirectionError::Padding(PaddingError));
    assert_eq!(reader.feed(Client, &data(flag::PADDED, 1, b"\x04abc"), |_| {}), error);
    assert_eq!(reader.feed(Client, &ping(), |_| {}), error);
    assert!(reader.feed(Server, &headers(0, 1, OK), |_| {}).is_ok(), "the other direction goes on");

    reader.direction_mut(Client).lose_track(0);
    assert!(reader.direction(Client).is_resynchronising());
    let later = [ping(), ping(), ping(), headers(0, 7, GET)].concat();
    assert_eq!(events(&mut reader, Client, &later), ["7 Unknown 1 fields"]);
    assert_eq!(events(&mut reader, Client, &headers(0, 9, GET)), ["9 Header 1 fields"], "client streams count up");
}

#[test]
fn resets_and_goaway() {
    let mut reader = opened();
    events(&mut reader, Client, &[headers(0, 1, GET), data(0, 1, b"abc")].concat());
    let reset = frame(3, 0, 1, &[0, 0, 0, 8]);
    let mut codes = Vec::new();
    let on_event = |event: Event<'_>| {
        if let Event::Reset { stream_id, error_code, .. } = event {
            codes.push((stream_id, error_code));
        }
    };
    reader.feed(Server, &reset, on_event).unwrap();
    assert_eq!(codes, [(1, 8)]);
    assert_eq!(events(&mut reader, Client, &data(0, 1, b"x")), ["1 @0 \"x\""], "the stream was forgotten both ways");
    let goaway = frame(7, 0, 0, &[0x80, 0, 0, 5, 0, 0, 0, 2, b'd', b'e', b'b', b'u', b'g']);
    assert_eq!(events(&mut reader, Server, &goaway), ["GoAway { last_stream_id: 5, error_code: 2 }"]);
}

#[test]
fn the_receiver_s_settings_bound_the_sender_s_table() {
    let mut reader = opened();
    assert!(events(&mut reader, Server, &headers(0, 1, UPDATE_8192))[0].contains("above the limit"));

    // 8,192 may be used once it is announced, and 100 must be kept to once it is acknowledged.
    let mut reader = opened();
    events(&mut reader, Client, &settings(&[(1, 8192)]));
    assert_eq!(events(&mut reader, Server, &headers(0, 1, UPDATE_8192)), ["1 Header 0 fields"]);
    events(&mut reader, Client, &settings(&[(1, 100)]));
    assert_eq!(events(&mut reader, Server, &headers(0, 3, UPDATE_8192)), ["3 Header 0 fields"], "not yet acknowledged");
    events(&mut reader, Server, &settings_ack());
    events(&mut reader, Server, &settings_ack());
    assert_eq!(events(&mut reader, Server, &headers(0, 5, UPDATE_100)), ["5 Header 0 fields"]);
    let lost = HeadersLost::Decode(DecodeError::Malformed(Malformed::SizeUpdateTooLarge(4096)));
    assert_eq!(events(&mut reader, Server, &headers(0, 7, UPDATE_4096)), [format!("7 lost: {lost}")]);
}

#[test]
fn a_size_update_stands_first_in_its_block() {
    let mut reader = opened();
    let both = [UPDATE_100, UPDATE_4096, GET].concat();
    assert_eq!(events(&mut reader, Client, &headers(0, 1, &both)), ["1 Header 1 fields"]);
    let late = [GET, UPDATE_100].concat();
    let lost = DecodeError::Malformed(Malformed::SizeUpdateLate);
    assert_eq!(events(&mut reader, Client, &headers(0, 3, &late)), [format!("3 lost: {lost}")]);
}

#[test]
fn a_promise_feeds_the_table_and_says_nothing() {
    let mut reader = opened();
    let promise = frame(5, flag::END_HEADERS, 1, &[0, 0, 0, 2, 0x40, 1, b'a', 1, b'b']);
    assert_eq!(events(&mut reader, Server, &promise), [""; 0]);
    assert_eq!(events(&mut reader, Server, &headers(0, 1, &[0x80 | 62])), ["1 Header 1 fields"]);
}

#[test]
fn blocks_in_pieces_and_interrupted_ones() {
    let mut reader = opened();
    let whole = [headers_begun(1, GET), continuation(0, 1, GET), continuation(flag::END_HEADERS, 1, GET)].concat();
    let mut read = Vec::new();
    for octet in whole {
        read.extend(events(&mut reader, Client, &[octet]));
    }
    assert_eq!(read, ["1 Header 3 fields"]);

    let interrupted = [headers_begun(3, GET), data(0, 1, b"abc"), headers(0, 5, GET)].concat();
    let expected = ["1 lost: header block is interrupted by another frame", "1 @0 \"abc\"", "5 Header 1 fields"];
    assert_eq!(events(&mut reader, Client, &interrupted), expected);
    assert_eq!(reader.direction(Client).counters().blocks.malformed, 1);
}

#[test]
fn sections_of_a_late_joiner() {
    let mut server = Direction::joined_at(Server, 0);
    let mut sections = Vec::new();
    let octets = [headers(0, 9, OK), data(0, 9, b"x"), headers(1, 9, OK), headers(1, 11, OK)].concat();
    let on_event = |event: Event<'_>| {
        if let Event::Headers { section, .. } = event {
            sections.push(section);
        }
    };
    server.feed(&octets, on_event).unwrap();
    assert_eq!(sections, [Section::Unknown, Section::Trailer, Section::Unknown]);
}

#[test]
fn larger_frames_are_taken_once_they_are_announced() {
    let large = data(0, 1, &[b'x'; 20_000]);
    assert!(opened().feed(Client, &large, |_| {}).is_err());
    let mut reader = opened();
    reader.feed(Server, &settings(&[(5, 20_000)]), |_| {}).unwrap();
    assert!(reader.feed(Client, &large, |_| {}).is_ok());
}
