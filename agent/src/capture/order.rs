//! The records of a connection in an order in which no call is answered before it was made.
//!
//! Each end's records come in order, but a write is told of when it returns in fentry and tracepoint mode, and its bytes are there
//! to read before that: a server may have answered, and its answer been told of, while the thread that wrote the request has yet to
//! come back to the CPU. So what a server says of a call that is not known yet waits for the call, with all that it says later.
//!
//! ```text
//! client   HEADERS 5 ───────────────────────────────┐ told of late
//! server                  HEADERS 5, DATA 5 ─ wait ─┴─► released in order
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use spanlet_abi::event::{CLIENT, Head, Kind, headers};
use spanlet_http2::frame::flag;

use super::connection::{Connection, Sink};
use super::decode::Kept;
use super::gaps::Gaps;
use super::limits::{EARLY_FOR_NS, MAX_EARLY};
use super::record::Record;
use crate::call::Socket;

/// A connection and what came too early.
#[derive(Debug)]
pub struct Ordered {
    connection: Connection,
    /// The newest stream that the client was told to have begun; they only go up (RFC 9113 §5.1.1).
    begun: u32,
    early: VecDeque<Early>,
}

/// A record that waits.
#[derive(Debug)]
struct Early {
    kind: Kind,
    head: Head,
    data: Box<[u8]>,
}

// === impl Ordered ===

impl Ordered {
    pub fn new(connection: Connection) -> Self {
        Self { connection, begun: 0, early: VecDeque::new() }
    }

    pub fn opened_again(&mut self, head: &Head, socket: Arc<Socket>) {
        self.connection.opened_again(head, socket);
    }

    pub fn gaps(&self) -> Gaps {
        self.connection.gaps()
    }

    pub fn kept(&self) -> Kept {
        Kept { early: self.early.len(), ..self.connection.kept() }
    }

    pub fn learn(&mut self, stream: u32, method: &Arc<str>) {
        self.connection.learn(stream, method);
    }

    pub fn is_before(&self, opened: &Head) -> bool {
        self.connection.is_before(opened)
    }

    pub fn lose(&mut self, end: u8, monotonic_ns: u64) {
        self.connection.lose(end, monotonic_ns);
    }

    pub fn doubt(&mut self, monotonic_ns: u64) {
        self.connection.doubt(monotonic_ns);
    }

    /// Takes in one record. Says whether the connection is over.
    pub fn record(&mut self, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        if self.is_early(record) {
            self.early.push_back(Early { kind: record.kind, head: record.head, data: record.data.into() });
            return self.early.len() > MAX_EARLY && self.release_all(sink);
        }
        if record.head.end != CLIENT || record.kind == Kind::Read {
            return self.connection.record(record, sink);
        }
        let lost = self.connection.gaps().tracks_lost;
        // What the client wrote was told of before it closed: nothing can come for what waits.
        if record.kind == Kind::Closed && self.release_all(sink) {
            return true;
        }
        if self.connection.record(record, sink) {
            return true;
        }
        if begins_stream(record) {
            self.begun = self.begun.max(record.head.stream);
        }
        // The call that is waited for may be among what was lost.
        if lost == self.connection.gaps().tracks_lost { self.release(sink) } else { self.release_all(sink) }
    }

    /// What a server says of a call that was not told of yet; and, as its header blocks build on each other, what it says then.
    fn is_early(&self, record: &Record<'_>) -> bool {
        if record.head.end == CLIENT || record.kind == Kind::Read {
            return false;
        }
        !self.early.is_empty() || self.is_of_unknown_call(record.kind, &record.head)
    }

    fn is_of_unknown_call(&self, kind: Kind, head: &Head) -> bool {
        let is_of_call = matches!(kind, Kind::Headers | Kind::Field | Kind::DataEnd | Kind::Streaming | Kind::Reset);
        is_of_call && head.stream > self.begun
    }

    /// Takes in what waited, up to what waits for another call. Says whether the connection is over.
    fn release(&mut self, sink: &mut Sink<'_>) -> bool {
        while self.early.front().is_some_and(|first| !self.is_of_unknown_call(first.kind, &first.head)) {
            if self.release_first(sink) {
                return true;
            }
        }
        false
    }

    /// The same for all that waits: the call that was waited for is not to come.
    fn release_all(&mut self, sink: &mut Sink<'_>) -> bool {
        while !self.early.is_empty() {
            if self.release_first(sink) {
                return true;
            }
        }
        false
    }

    fn release_first(&mut self, sink: &mut Sink<'_>) -> bool {
        let first = self.early.pop_front();
        first
            .is_some_and(|Early { kind, head, data }| self.connection.record(&Record { kind, head, data: &data }, sink))
    }

    /// Called every second or so. Says whether the connection is over.
    pub fn tick(&mut self, now_monotonic_ns: u64, sink: &mut Sink<'_>) -> bool {
        let waited = |first: &Early| first.head.time_ns.saturating_add(EARLY_FOR_NS) < now_monotonic_ns;
        let is_over = self.early.front().is_some_and(waited) && self.release_all(sink);
        is_over || self.connection.tick(now_monotonic_ns, sink)
    }

    /// Ends every open call.
    pub fn abandon(&mut self, now_unix_ns: u64, sink: &mut Sink<'_>) {
        if !self.release_all(sink) {
            self.connection.abandon(now_unix_ns, sink);
        }
    }
}

/// Whether this is the last part of a header block.
fn begins_stream(record: &Record<'_>) -> bool {
    record.kind == Kind::Headers
        && record.head.note & headers::FRAME_COMPLETE != 0
        && record.head.flags & flag::END_HEADERS != 0
}
