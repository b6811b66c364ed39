//! Target `connection`: both directions of a whole connection.
//!
//! Input: an octet (bit 0: the connection is joined in the middle), then pieces: an octet (bit 0: the server sends, bit 1: the
//! sender's track is lost first), a length of two octets (little-endian), the octets.

use std::collections::BTreeMap;

use spanlet_http2::HeaderList;
use spanlet_http2::connection::{Endpoint, Event, Reader, Section};
use spanlet_http2::limits::MAX_FIELDS;

use crate::input::Input;

/// What a reader told, in a form that does not depend on how its input was cut.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    events: Vec<Kept>,
    /// Octets of data by direction and stream.
    data: BTreeMap<(bool, u32), Vec<u8>>,
    /// Octets of all data.
    data_bytes: u64,
}

/// An event other than data.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    /// Stream, offset, octets of the block, part of the message, whether the stream ends, fields.
    Headers(u32, u64, usize, Section, bool, HeaderList),
    EndOfData(u32),
    /// Any other, in words.
    Other(String),
}

/// See the module.
pub fn connection(input: &[u8]) {
    let whole = run(Input(input), usize::MAX);
    let by_pieces = run(Input(input), 7);
    assert_eq!(whole, by_pieces, "pieces change nothing");
}

fn run(mut input: Input<'_>, piece: usize) -> Told {
    let late = input.byte() & 1 != 0;
    let mut reader = if late { Reader::late() } else { Reader::new() };
    let mut told = Told::default();
    let mut fed_bytes = 0;
    while !input.is_empty() {
        let how = input.byte();
        let length = input.word();
        let octets = input.take(usize::from(length));
        let from_server = how & 1 != 0;
        let sender = if from_server { Endpoint::Server } else { Endpoint::Client };
        if how & 2 != 0 {
            reader.direction_mut(sender).lose_track(u64::from(how >> 2));
        }
        for octets in octets.chunks(piece) {
            let result = reader.feed(sender, octets, |event| told.take(from_server, &event));
            if let Err(error) = result {
                assert_eq!(reader.feed(sender, b"", |_| {}), Err(error), "an error stays");
            }
        }
        fed_bytes += octets.len() as u64;
        assert!(reader.direction(sender).counters().resync_dropped_bytes <= fed_bytes);
        assert!(told.data_bytes <= fed_bytes, "data was sent");
    }
    told
}

impl Told {
    fn take(&mut self, from_server: bool, event: &Event<'_>) {
        match event {
            Event::Data { stream_id, stream_offset, octets, end_stream, .. } => {
                assert!(*stream_offset <= self.data_bytes, "data before this piece was told");
                self.data_bytes += octets.len() as u64;
                self.data.entry((from_server, *stream_id)).or_default().extend_from_slice(octets);
                if *end_stream {
                    self.events.push(Kept::EndOfData(*stream_id));
                }
            }
            Event::Headers { stream_id, frame_offset, block_bytes, section, end_stream, list } => {
                assert!(list.fields().len() <= MAX_FIELDS);
                let list = (*list).clone();
                self.events.push(Kept::Headers(*stream_id, *frame_offset, *block_bytes, *section, *end_stream, list));
            }
            _ => self.events.push(Kept::Other(format!("{event:?}"))),
        }
    }
}
