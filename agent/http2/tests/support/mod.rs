//! Recordings of kubelet's CRI connections, and what a connection decodes to, in the form of their `decoded.json`.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod encoder;
pub(crate) mod frames;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use spanlet_http2::connection::{Endpoint, Event, Reader, Section};
use spanlet_http2::{HeaderList, Octets};

/// Every recorded connection.
pub(crate) const RECORDINGS: [&str; 4] = ["k134-c17-1", "k134-c17-2", "k134-c22-notrace-1", "k134-c22-notrace-2"];

/// One recorded connection.
pub(crate) struct Recording {
    pub(crate) client: Vec<u8>,
    pub(crate) server: Vec<u8>,
    /// The client's writes and reads in order: who sent, and where in that direction the chunk ends.
    pub(crate) chunks: Vec<(Endpoint, usize)>,
    /// One stream a line.
    pub(crate) decoded: Vec<Value>,
}

impl Recording {
    pub(crate) fn load(name: &str) -> Self {
        let decoded = String::from_utf8(fixture(name, "decoded.json")).expect("JSON is UTF-8");
        Self {
            client: fixture(name, "c2s.bin"),
            server: fixture(name, "s2c.bin"),
            chunks: chunks(name),
            decoded: decoded.lines().map(|line| serde_json::from_str(line).expect("a stream a line")).collect(),
        }
    }

    pub(crate) fn sent_by(&self, sender: Endpoint) -> &[u8] {
        match sender {
            Endpoint::Client => &self.client,
            Endpoint::Server => &self.server,
        }
    }

    /// The whole connection in pieces of at most `at_most` octets, in the recorded order.
    pub(crate) fn pieces(&self, at_most: usize) -> impl Iterator<Item = (Endpoint, &[u8])> {
        let mut fed = [0, 0];
        self.chunks.iter().flat_map(move |&(sender, end)| {
            let start = std::mem::replace(&mut fed[sender as usize], end);
            self.sent_by(sender)[start..end].chunks(at_most).map(move |piece| (sender, piece))
        })
    }

    /// The recorded header lists of one direction, by the offset of their frame.
    pub(crate) fn header_lists(&self, sender: Endpoint) -> BTreeMap<u64, Vec<(String, String)>> {
        let parts: &[&str] = match sender {
            Endpoint::Client => &["req_headers"],
            Endpoint::Server => &["resp_headers", "trailers"],
        };
        let mut lists = BTreeMap::new();
        for stream in &self.decoded {
            for part in parts.iter().filter(|part| stream.get(**part).is_some()) {
                let offset = stream[format!("{part}_off")].as_u64().expect("an offset");
                let list = serde_json::from_value(stream[*part].clone()).expect("pairs of strings");
                lists.insert(offset, list);
            }
        }
        lists
    }
}

/// Frame headers of a recording's direction, read without the crate: offsets and the nine octets.
pub(crate) fn frame_offsets(octets: &[u8], sender: Endpoint) -> Vec<usize> {
    let mut offset = if sender == Endpoint::Client { 24 } else { 0 };
    let mut offsets = Vec::new();
    while offset < octets.len() {
        offsets.push(offset);
        let length = u32::from_be_bytes([0, octets[offset], octets[offset + 1], octets[offset + 2]]);
        offset += 9 + length as usize;
    }
    offsets
}

fn fixture(name: &str, part: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/cri");
    let path = folder.join(format!("cri-conn-{name}-client-{part}"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the client wrote (tx) and read (rx), call by call.
fn chunks(name: &str) -> Vec<(Endpoint, usize)> {
    let events: Vec<Value> = serde_json::from_slice(&fixture(name, "events.json")).expect("an array of events");
    let mut chunks = Vec::new();
    for event in events {
        let sender = match event["dir"].as_str() {
            Some("tx") => Endpoint::Client,
            Some("rx") => Endpoint::Server,
            _ => continue,
        };
        let end = event["off"].as_u64().expect("off") + event["len"].as_u64().expect("len");
        chunks.push((sender, end as usize));
    }
    chunks
}

/// Collects events into the recordings' form.
#[derive(Default)]
pub(crate) struct Streams {
    streams: BTreeMap<u32, Stream>,
    pub(crate) others: Vec<String>,
}

#[derive(Default)]
struct Stream {
    fields: serde_json::Map<String, Value>,
    frames: [Vec<(u64, u32)>; 2],
    data: [Vec<u8>; 2],
}

impl Streams {
    pub(crate) fn observe(&mut self, sender: Endpoint, event: &Event<'_>) {
        match *event {
            Event::Headers { stream_id, frame_offset, block_bytes, section, end_stream, list } => {
                let part = match (sender, section, end_stream) {
                    (Endpoint::Client, Section::Header, false) => "req_headers",
                    (Endpoint::Server, Section::Header, false) => "resp_headers",
                    // "Trailers only" is recorded as trailers.
                    (Endpoint::Server, _, true) => "trailers",
                    other => panic!("unexpected header block {other:?} on stream {stream_id}"),
                };
                let hpack_len = format!("{}_hpack_len", part);
                let fields = &mut self.streams.entry(stream_id).or_default().fields;
                assert_eq!(fields.insert(part.to_owned(), pairs(list)), None, "{part} come once");
                fields.insert(format!("{part}_off"), json!(frame_offset));
                fields.insert(hpack_len, json!(block_bytes));
            }
            Event::Data { stream_id, frame_offset, frame_bytes, stream_offset, octets, .. } => {
                let stream = self.streams.entry(stream_id).or_default();
                let (frames, data) = (&mut stream.frames[sender as usize], &mut stream.data[sender as usize]);
                if frames.last().is_none_or(|&(last_offset, _)| last_offset != frame_offset) {
                    frames.push((frame_offset, frame_bytes));
                }
                assert_eq!(stream_offset, data.len() as u64, "data of stream {stream_id} is contiguous");
                data.extend_from_slice(octets);
            }
            ref other => self.others.push(format!("{sender:?} {other:?}")),
        }
    }

    /// One object a stream, as in `decoded.json`: `req_msg` and `resp_msg` are flag and length of the gRPC prefix.
    pub(crate) fn into_json(self) -> Vec<Value> {
        let to_json = |(stream_id, stream): (u32, Stream)| {
            let mut fields = stream.fields;
            fields.insert("stream".to_owned(), json!(stream_id));
            for (side, part) in ["req", "resp"].into_iter().enumerate() {
                if let Some(prefix) = stream.data[side].first_chunk::<5>() {
                    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
                    assert_eq!(stream.data[side].len(), len as usize + 5, "one whole message on stream {stream_id}");
                    fields.insert(format!("{part}_msg"), json!([prefix[0], len]));
                    fields.insert(format!("{part}_data"), json!(stream.frames[side]));
                }
            }
            Value::Object(fields)
        };
        self.streams.into_iter().map(to_json).collect()
    }
}

/// Feeds a whole connection.
pub(crate) fn read_connection<'a>(pieces: impl Iterator<Item = (Endpoint, &'a [u8])>) -> (Reader, Streams) {
    let mut reader = Reader::new();
    let mut streams = Streams::default();
    for (sender, piece) in pieces {
        reader.feed(sender, piece, |event| streams.observe(sender, &event)).expect("a recording is valid");
    }
    (reader, streams)
}

fn pairs(list: &HeaderList) -> Value {
    let text = |octets: &Octets| {
        let octets = octets.known().expect("nothing is unknown from the first byte on");
        String::from_utf8(octets.to_vec()).expect("recorded fields are ASCII")
    };
    list.fields().iter().map(|field| json!([text(&field.name), text(&field.value)])).collect()
}
