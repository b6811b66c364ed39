//! What a recording says of each of its calls, from its files alone: names from an independent decoding, times from the
//! recorded system calls.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use spanlet_node::replay::{Action, Connection, Event, Recording, Side};

/// Octets of an HTTP/2 frame's header (RFC 9113 §4.1).
const FRAME_HEADER: u64 = 9;

/// One recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedCall {
    /// Number of the connection in the recording.
    pub connection: u32,
    pub stream: u32,
    /// `package.Service/Method`.
    pub method: String,
    pub traceparent: Option<String>,
    pub status: Option<u8>,
    /// `None` without the server's events.
    pub phases: Option<Phases>,
}

/// The four phases, nanoseconds. Negative where the recorder stamped a read before the write that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    pub request_wait_ns: i64,
    pub handling_ns: i64,
    pub response_send_ns: i64,
    pub response_wait_ns: i64,
}

/// Every call of a recording.
pub fn calls(prefix: &Path) -> Result<Vec<ExpectedCall>> {
    let recording = Recording::open(prefix)?;
    let mut calls = Vec::new();
    for connection in &recording.connections {
        let path = format!("{}-{}-client-decoded.json", prefix.display(), connection.number);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let times = connection.has_server_events.then(|| Times::read(connection)).transpose()?;
        for line in text.lines() {
            let stream: Stream = serde_json::from_str(line).with_context(|| format!("understand {path}"))?;
            calls.push(stream.call(connection.number, times.as_ref())?);
        }
    }
    Ok(calls)
}

/// A line of a decoded file. Offsets are those of frame headers, lengths those of payloads.
#[derive(Debug, Deserialize)]
struct Stream {
    stream: u32,
    req_headers: Vec<(String, String)>,
    req_data: Vec<(u64, u64)>,
    resp_headers_off: Option<u64>,
    trailers: Vec<(String, String)>,
    trailers_off: u64,
    trailers_hpack_len: u64,
}

impl Stream {
    fn call(&self, connection: u32, times: Option<&Times>) -> Result<ExpectedCall> {
        let path = value(&self.req_headers, ":path").context("a request without :path")?;
        Ok(ExpectedCall {
            connection,
            stream: self.stream,
            method: path.trim_start_matches('/').to_owned(),
            traceparent: value(&self.req_headers, "traceparent").map(str::to_owned),
            status: value(&self.trailers, "grpc-status").map(str::parse).transpose()?,
            phases: times.map(|times| self.phases(times)).transpose()?,
        })
    }

    fn phases(&self, times: &Times) -> Result<Phases> {
        let &(offset, length) = self.req_data.last().context("a request without DATA")?;
        let request_last = offset + FRAME_HEADER + length - 1;
        let response_first = self.resp_headers_off.unwrap_or(self.trailers_off);
        let response_last = self.trailers_off + FRAME_HEADER + self.trailers_hpack_len - 1;
        let request_written = start_of(&times.client, request_last, sent)?;
        let request_read = end_of(&times.server, request_last, received)?;
        let response_started = start_of(&times.server, response_first, sent)?;
        let response_written = start_of(&times.server, response_last, sent)?;
        let response_read = end_of(&times.client, response_last, received)?;
        Ok(Phases {
            request_wait_ns: request_read - request_written,
            handling_ns: response_started - request_read,
            response_send_ns: response_written - response_started,
            response_wait_ns: response_read - response_written,
        })
    }
}

/// Both ends' system calls.
struct Times {
    client: Vec<Event>,
    server: Vec<Event>,
}

impl Times {
    fn read(connection: &Connection) -> Result<Self> {
        let events = |side| connection.events(side)?.collect::<Result<Vec<_>>>();
        Ok(Self { client: events(Side::Client)?, server: events(Side::Server)? })
    }
}

type Moves = fn(&Action) -> Option<(u64, u64)>;

fn sent(action: &Action) -> Option<(u64, u64)> {
    if let Action::Write(part) = action { Some((part.offset, part.end())) } else { None }
}

fn received(action: &Action) -> Option<(u64, u64)> {
    if let Action::Read(part) = action { Some((part.offset, part.end())) } else { None }
}

/// Entry of the call that moved the byte at `offset`.
fn start_of(events: &[Event], offset: u64, moves: Moves) -> Result<i64> {
    Ok(covering(events, offset, moves)?.start_ns as i64)
}

/// Return of the call that moved the byte at `offset`.
fn end_of(events: &[Event], offset: u64, moves: Moves) -> Result<i64> {
    Ok(covering(events, offset, moves)?.end_ns as i64)
}

fn covering(events: &[Event], offset: u64, moves: Moves) -> Result<&Event> {
    let covers = |event: &&Event| moves(&event.action).is_some_and(|(from, to)| (from..to).contains(&offset));
    events.iter().find(covers).with_context(|| format!("no system call moved byte {offset}"))
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
