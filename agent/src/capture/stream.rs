//! One gRPC call while it runs.
//!
//! ```text
//!   request headers ─► fields, end of the request ─► response headers ─► trailers ─► response read
//!   └──── Started as soon as the subject is known ────┘                              └─ Finished
//!                         RST_STREAM, a closed connection: Finished at once
//! ```
//!
//! Where records were lost the call may be over without its end having been seen; see `ends`. What a gap makes ambiguous is
//! left out: the rest of a field, and the points of a response that may have been a stream.

use std::sync::Arc;

use spanlet_abi::event::{CLIENT, Head, field, headers};
use spanlet_http2::{HeaderList, grpc_timeout};

use super::clock::Clock;
use super::guess;
use super::limits::{MAX_FIELD_BYTES, MAX_FIELDS};
use super::reads::Point;
use super::subject::{self, Field};
use crate::call::{Call, Naming, Peer, Points, Socket, Status, StatusSource, Traceparent};

/// gRPC status codes used here (grpc `status.md`).
pub mod code {
    pub const OK: u8 = 0;
    pub const CANCELLED: u8 = 1;
    pub const UNKNOWN: u8 = 2;
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const PERMISSION_DENIED: u8 = 7;
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    pub const INTERNAL: u8 = 13;
    pub const UNAVAILABLE: u8 = 14;
}

/// A call and what is not part of it.
#[derive(Debug)]
pub struct Stream {
    pub call: Call,
    /// Every time of a call is told by the clock that was sampled last when it began: between two samples the wall clock is
    /// slewed, which would make short phases negative.
    pub clock: Clock,
    fields: Vec<Field>,
    response_id: Option<String>,
    /// The response's field 1 is an id, though it may not be kept.
    has_response_id: bool,
    /// [`crate::call::CallEvent::Started`] was told.
    pub told: bool,
    /// The last byte of the request was told of.
    pub request_ended: bool,
    /// When the last byte of the response was written; the call only waits for it to be read.
    pub over_ns: Option<u64>,
    pub response_read: ResponseRead,
    /// Since when it may be over, monotonic nanoseconds: records that may have been of this call went by unseen.
    pub doubted_since_ns: Option<u64>,
    /// Records of this end went by unseen, so that its first message may not be its only one.
    gaps: [bool; 2],
    /// A part of the last field is to come.
    field_under_way: bool,
    /// Bytes of the client up to the end of the request's headers.
    headers_end: u64,
    /// Its only message has no bytes.
    request_is_empty: bool,
}

/// A DATA frame's header and the prefix of a message without bytes; no other frame fits between headers and its end.
const EMPTY_REQUEST_BYTES: u64 = 9 + 5;

/// Whether the response, of a streaming call its first message, was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseRead {
    /// Its end is not known yet.
    NotAwaited,
    Awaited,
    Reached,
}

/// A value whose name is known from the wire, or, where the name is older than the attach, from its shape.
fn header<'a>(list: &'a HeaderList, name: &[u8]) -> Option<&'a [u8]> {
    list.value(name).and_then(|value| value.known())
}

/// The outcome by the shape of the response: a message and trailers, or trailers only. Headers and trailers without a message
/// may be an error or a stream of nothing.
fn shape(after_data: bool, begins: bool) -> Option<u8> {
    match (after_data, begins) {
        (true, _) => Some(code::OK),
        (false, true) => Some(code::UNKNOWN),
        (false, false) => None,
    }
}

// === impl Stream ===

impl Stream {
    /// A call that began with these request headers.
    pub fn begin(connection: u64, head: &Head, socket: &Arc<Socket>, clock: Clock, headers: &HeaderList) -> Self {
        let started_ns = clock.unix_ns(head.begun_ns);
        let method = header(headers, b":path").and_then(|path| std::str::from_utf8(path).ok());
        let method: Option<Arc<str>> = method.map(|path| Arc::from(path.strip_prefix('/').unwrap_or(path)));
        let call = Call {
            connection,
            stream: head.stream,
            socket: Arc::clone(socket),
            naming: if method.is_some() { Naming::Wire } else { Naming::Unknown },
            guess: None,
            method,
            traceparent: traceparent(headers),
            status: None,
            lost_track: false,
            streaming: false,
            started_ns,
            ended_ns: started_ns,
            points: Points::default(),
            timeout_ns: header(headers, b"grpc-timeout").and_then(grpc_timeout::parse),
            subject: crate::call::Subject::Unknown,
            response_id: None,
            client: Peer::default(),
            server: Peer::default(),
            owner: None,
        };
        Self {
            call,
            clock,
            fields: Vec::new(),
            response_id: None,
            has_response_id: false,
            told: false,
            request_ended: false,
            over_ns: None,
            response_read: ResponseRead::NotAwaited,
            doubted_since_ns: None,
            gaps: [false; 2],
            field_under_way: false,
            headers_end: headers_end(head),
            request_is_empty: false,
        }
    }

    /// The request's last byte was written; `offset` counts as [`Head::offset`].
    pub fn request_written(&mut self, time_ns: u64, offset: u64) {
        self.call.points.request_written_ns = Some(time_ns);
        self.request_is_empty = offset.checked_sub(self.headers_end) == Some(EMPTY_REQUEST_BYTES);
    }

    /// Records that may have been of this call went by unseen.
    pub fn doubt(&mut self, monotonic_ns: u64) {
        self.doubted_since_ns.get_or_insert(monotonic_ns);
    }

    /// Records of this end went by unseen.
    pub fn lose(&mut self, end: u8, monotonic_ns: u64) {
        self.call.lost_track = true;
        self.doubt(monotonic_ns);
        self.gaps[usize::from(end != CLIENT)] = true;
        if end == CLIENT {
            self.break_fields();
        }
    }

    /// Whether the end of this end's message may be that of a later one: the record that tells them apart may be lost.
    pub fn is_ambiguous(&self, end: u8) -> bool {
        self.gaps[usize::from(end != CLIENT)]
    }

    /// What follows does not go on where the fields ended.
    fn break_fields(&mut self) {
        if let Some(last) = self.fields.last_mut().filter(|_| self.field_under_way) {
            last.cut = true;
        }
        self.field_under_way = false;
        // A field that is cut parts what stood before the gap from what comes behind it.
        if self.fields.len() < MAX_FIELDS && self.fields.last().is_some_and(|last| !last.cut) {
            self.fields.push(Field { cut: true, ..Field::default() });
        }
        self.settle_subject();
    }

    /// A part of a field of the request.
    pub fn request_field(&mut self, number: u32, part: &[u8], note: u32) {
        let has = |bit| note & bit != 0;
        let cut = has(field::CUT);
        if has(field::BEGINS) {
            self.field_under_way = self.fields.len() < MAX_FIELDS;
            if self.field_under_way {
                self.fields.push(Field { number, nested: has(field::NESTED), cut, bytes: Vec::new() });
            }
        }
        if !self.field_under_way {
            return; // one too many, or the rest of one whose beginning is lost
        }
        self.field_under_way = !has(field::COMPLETE);
        if let Some(last) = self.fields.last_mut().filter(|last| last.number == number) {
            let kept = &part[..part.len().min(MAX_FIELD_BYTES - last.bytes.len())];
            last.bytes.extend_from_slice(kept);
            last.cut |= cut || kept.len() < part.len();
        }
        self.settle_subject();
    }

    /// Bytes kept of the request's fields.
    pub fn field_bytes(&self) -> usize {
        self.fields.iter().map(|field| field.bytes.len()).sum()
    }

    /// The method is known now.
    pub fn learn(&mut self, method: &Arc<str>) {
        if self.call.method.is_none() {
            self.call.method = Some(Arc::clone(method));
            self.call.naming = Naming::Learned;
            self.settle_subject();
            self.settle_response_id();
        }
    }

    /// Offers what the shape tells of a method that is not known.
    pub fn guess(&mut self) {
        let is_open = self.call.method.is_none() && !self.field_under_way;
        let shape = guess::Shape {
            fields: &self.fields,
            is_empty: self.request_is_empty,
            answers_id: self.has_response_id,
            timeout_ns: self.call.timeout_ns,
            streaming: self.call.streaming,
        };
        self.call.guess = if is_open { guess::of(self.call.socket.kind, shape) } else { None };
    }

    /// A part of a field names nobody: the rest may change what it says.
    fn settle_subject(&mut self) {
        let whole = self.fields.len() - usize::from(self.field_under_way);
        self.call.subject = subject::of(self.call.socket.kind, self.call.method.as_deref(), &self.fields[..whole]);
    }

    /// An id that the server answered with. It is kept only where the method says that it is one.
    pub fn response_field(&mut self, bytes: &[u8]) {
        self.has_response_id = true;
        self.response_id = String::from_utf8(bytes.to_vec()).ok();
        self.settle_response_id();
    }

    fn settle_response_id(&mut self) {
        let id = self.response_id.take();
        if self.call.method.as_deref().is_some_and(|m| m.ends_with("/RunPodSandbox") || m.ends_with("/CreateContainer"))
        {
            self.call.response_id = id;
        }
    }

    /// A header block of the server: the first of several, the trailers, or the only one. Only the first has `:status`, a name of
    /// the static table, which every decoder knows: trailers never pass for the beginning of a response that was lost.
    pub fn response_headers(&mut self, headers: &HeaderList, begun_ns: u64, ends: bool, after_data: bool) {
        let begins = headers.value(b":status").is_some();
        if begins && self.call.points.response_started_ns.is_none() {
            self.call.points.response_started_ns = Some(begun_ns);
            self.gaps[1] = false; // all of the response comes behind the gap
        }
        if ends {
            let told = header(headers, b"grpc-status").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
            self.call.status = match told {
                Some(code) => Some(Status { code, source: StatusSource::Wire }),
                None => shape(after_data, begins).map(|code| Status { code, source: StatusSource::Shape }),
            };
        }
    }

    /// The response's last byte was written.
    pub fn response_written(&mut self, time_ns: u64) {
        self.call.points.response_written_ns = Some(time_ns);
        self.over(time_ns);
    }

    /// The call is over but for what may still be read. Not before it began, in whatever order its records come.
    pub fn over(&mut self, time_ns: u64) {
        self.over_ns = Some(time_ns);
        self.set_ended(time_ns);
    }

    fn set_ended(&mut self, time_ns: u64) {
        self.call.ended_ns = time_ns.max(self.call.started_ns);
    }

    /// A point was reached by a read.
    pub fn reached(&mut self, point: Point, time_ns: Option<u64>) {
        match point {
            Point::RequestRead => self.call.points.request_read_ns = time_ns,
            Point::ResponseRead => {
                self.response_read = ResponseRead::Reached;
                self.call.points.response_read_ns = time_ns;
                if let Some(time_ns) = time_ns.filter(|_| !self.call.streaming) {
                    self.set_ended(time_ns);
                }
            }
        }
    }

    /// RST_STREAM, by either end. gRPC's mapping of error codes (grpc `PROTOCOL-HTTP2.md`, "Errors"); a cancelled call that
    /// has outlived its deadline has exceeded it: then neither end writes a status.
    pub fn reset(&mut self, error: u32, time_ns: u64) {
        let expired =
            self.call.timeout_ns.is_some_and(|timeout| time_ns >= self.call.started_ns.saturating_add(timeout));
        let code = match error {
            // CANCEL
            8 if expired => code::DEADLINE_EXCEEDED,
            8 => code::CANCELLED,
            // REFUSED_STREAM
            7 => code::UNAVAILABLE,
            // ENHANCE_YOUR_CALM, INADEQUATE_SECURITY
            11 => code::RESOURCE_EXHAUSTED,
            12 => code::PERMISSION_DENIED,
            _ => code::INTERNAL,
        };
        self.end(code, time_ns);
    }

    /// The call is over without having ended: its connection was closed, or its server does not take it. If it may have ended
    /// before, that is what is not known.
    pub fn abandoned(&mut self, time_ns: u64) {
        if self.call.lost_track {
            self.end_is_lost();
        } else {
            self.end(code::UNAVAILABLE, time_ns);
        }
    }

    /// How and when the call ended will not be known.
    pub fn end_is_lost(&mut self) {
        self.call.lost_track = true;
        if self.over_ns.is_none() {
            self.set_ended(self.call.points.last_ns().unwrap_or(self.call.started_ns));
        }
    }

    /// Where the response's first headers were lost, its trailers were taken for its start: a start behind the end is none.
    pub fn drop_false_start(&mut self) {
        let points = &mut self.call.points;
        if points.response_started_ns.zip(points.response_written_ns).is_some_and(|(start, end)| start > end) {
            points.response_started_ns = None;
        }
    }

    /// A status that was on the wire stays.
    fn end(&mut self, code: u8, time_ns: u64) {
        if self.call.status.is_none() {
            self.call.status = Some(Status { code, source: StatusSource::Inferred });
            self.set_ended(time_ns);
        }
    }
}

/// Where the request's headers ended.
fn headers_end(head: &Head) -> u64 {
    let behind = if head.note & headers::ENDS != 0 { head.field } else { 0 };
    head.offset.saturating_sub(u64::from(behind))
}

/// The `traceparent` header; a late joiner never sees its name again, but no other header has its shape.
fn traceparent(headers: &HeaderList) -> Option<Traceparent> {
    if let Some(value) = header(headers, b"traceparent") {
        return Traceparent::parse(value);
    }
    let unnamed = headers.fields().iter().filter(|field| field.name.known().is_none());
    unnamed.filter_map(|field| field.value.known()).find_map(Traceparent::parse)
}
