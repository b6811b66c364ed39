//! One watched connection: header blocks decoded, records of both ends brought together into calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spanlet_abi::event::{CLIENT, Head, Kind, Reason, SERVER, field, headers, opened, read};
use spanlet_http2::frame::flag;
use spanlet_http2::{Exactness, HeaderList};

use super::clock::Clock;
use super::decode::Kept;
use super::direction::{Block, Direction};
use super::ends::{self, Silent};
use super::gaps::Gaps;
use super::limits::{CLOSED_FOR_NS, MAX_STREAMS, MAX_UNNAMED};
use super::names::{self, Candidates, Names};
use super::reads::{Point, Reached, Reads};
use super::record::Record;
use super::stream::{ResponseRead, Stream};
use crate::call::{CallEvent, Peer, Socket};

/// A connection and its open calls.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    socket: Arc<Socket>,
    directions: [Direction; 2],
    /// Reads of what the client writes, and of what the server writes.
    reads: [Reads; 2],
    peers: [Peer; 2],
    /// When each end was closed, Unix nanoseconds.
    closed_ns: [Option<u64>; 2],
    /// By id, which is also the order in which they began.
    streams: BTreeMap<u32, Stream>,
    /// The last stream that the server takes, and when it said so.
    goaway: Option<(u32, u64)>,
    names: Names,
    /// The unknown entries of open calls without a name, by stream, and of calls just finished: their spans come later.
    unnamed: VecDeque<(u32, Candidates)>,
    /// Calls that were not followed because too many were open.
    pub streams_refused: u64,
    /// Calls that are over, though their end was not seen.
    pub ends_unseen: u64,
    /// Header blocks whose table state was lost.
    pub tracks_lost: u64,
    list: HeaderList,
}

/// Where a connection's calls go, and the clock to tell their times by.
pub struct Sink<'a> {
    pub clock: Clock,
    pub tell: &'a mut dyn FnMut(CallEvent),
    /// Finds the container that a process runs in.
    pub container_of: &'a mut dyn FnMut(u32) -> Option<Arc<str>>,
}

// === impl Connection ===

impl Connection {
    /// What was given up so far.
    pub fn gaps(&self) -> Gaps {
        Gaps {
            streams_refused: self.streams_refused,
            ends_unseen: self.ends_unseen,
            tracks_lost: self.tracks_lost,
            points_given_up: self.reads.iter().map(|reads| reads.given_up).sum(),
            ..Gaps::default()
        }
    }

    /// How much is kept now.
    pub fn kept(&self) -> Kept {
        Kept {
            connections: 0, // its owner counts them, and processes
            execs: 0,
            streams: self.streams.len(),
            waiting_points: self.reads.iter().map(Reads::waiting_points).sum(),
            early: 0, // see `order`
            unnamed: self.unnamed.len(),
            header_bytes: self.directions.iter().map(Direction::kept_bytes).sum(),
            field_bytes: self.streams.values().map(Stream::field_bytes).max().unwrap_or_default(),
        }
    }

    /// A connection that was opened, or found.
    pub fn new(id: u64, socket: Arc<Socket>, note: u32) -> Self {
        let old = note & opened::OLD != 0;
        Self {
            id,
            socket,
            directions: [Direction::new(old), Direction::new(old)],
            reads: [Reads::default(), Reads::default()],
            peers: [Peer::default(), Peer::default()],
            closed_ns: [None; 2],
            streams: BTreeMap::new(),
            goaway: None,
            names: Names::default(),
            unnamed: VecDeque::new(),
            streams_refused: 0,
            ends_unseen: 0,
            tracks_lost: 0,
            list: HeaderList::default(),
        }
    }

    /// The record that announced the connection counts as one of the client's.
    pub fn opened(&mut self, head: &Head) {
        self.directions[usize::from(CLIENT)].sequence = head.sequence;
    }

    /// Whether an announcement is not of this connection, but of a later one with the same inode: its records are counted anew.
    pub fn is_before(&self, opened: &Head) -> bool {
        let ahead = opened.sequence.wrapping_sub(self.directions[usize::from(CLIENT)].sequence);
        ahead.cast_signed() <= 0
    }

    /// The connection is announced again, by its better known path.
    pub fn opened_again(&mut self, head: &Head, socket: Arc<Socket>) {
        self.check_sequence(usize::from(CLIENT), head);
        self.socket = socket;
    }

    /// Takes in one record. Says whether the connection is over.
    pub fn record(&mut self, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        let head = &record.head;
        let end = usize::from(head.end != CLIENT);
        self.used_by(end, head.process, sink);
        match record.kind {
            Kind::Read => {
                self.read(end, head, sink);
                return false;
            }
            Kind::Closed => return self.close(end, head, sink),
            _ => self.check_sequence(end, head),
        }
        match record.kind {
            Kind::Headers if head.end == CLIENT => self.request_headers(record, sink),
            Kind::Headers => self.response_headers(record, sink),
            Kind::Field => {
                self.field(record, sink);
                if head.end == CLIENT && head.note & field::ENDS != 0 {
                    self.request_ends(head, sink);
                }
            }
            Kind::DataEnd if head.end == CLIENT => self.request_ends(head, sink),
            Kind::DataEnd => self.response_ends(head, sink),
            Kind::Streaming => self.streaming(head, sink),
            Kind::Reset => self.reset(head, sink),
            Kind::GoAway if head.end == SERVER => self.goes_away(head, sink),
            Kind::LostTrack => {
                if head.note == Reason::Unfollowed as u32 {
                    self.reads[end].counted_anew(head.offset, head.time_ns);
                }
                self.directions[end].lose();
                self.lose(head.end, head.time_ns);
            }
            _ => {}
        }
        false
    }

    /// The process at an end is looked up when it first shows, and when it is another than before.
    fn used_by(&mut self, end: usize, process: u32, sink: &mut Sink<'_>) {
        if process != 0 && self.peers[end].pid != Some(process) {
            self.peers[end] = Peer { pid: Some(process), container_id: (sink.container_of)(process) };
        }
    }

    /// A gap in an end's records: its table is no longer known, and the open calls may miss points.
    fn check_sequence(&mut self, end: usize, head: &Head) {
        if !self.directions[end].follows(head.sequence) {
            self.lose(head.end, head.time_ns);
        }
    }

    /// Records of an end went by unseen: how the open calls go on is not known.
    pub fn lose(&mut self, end: u8, monotonic_ns: u64) {
        self.tracks_lost += 1;
        for stream in self.streams.values_mut() {
            stream.lose(end, monotonic_ns);
        }
    }

    /// Records were lost, of this connection or of others: any of the open calls may be over.
    pub fn doubt(&mut self, monotonic_ns: u64) {
        self.streams.values_mut().for_each(|stream| stream.doubt(monotonic_ns));
    }

    fn request_headers(&mut self, record: &Record<'_>, sink: &mut Sink<'_>) {
        let mut list = std::mem::take(&mut self.list);
        if let Some(Block { head, sound }) = self.directions[usize::from(CLIENT)].headers(record, &mut list) {
            self.tracks_lost += u64::from(!sound);
            let decoder = &mut self.directions[usize::from(CLIENT)].decoder;
            if decoder.exactness() != Exactness::Exact {
                names::teach_by_shape(decoder, &list);
            }
            self.begin(&head, &list, sink);
        }
        self.list = list;
    }

    fn begin(&mut self, head: &Head, list: &HeaderList, sink: &mut Sink<'_>) {
        if self.streams.contains_key(&head.stream) {
            return; // a second block of a request: trailers, which gRPC clients do not send
        }
        if self.streams.len() == MAX_STREAMS {
            let Some((oldest, end)) = ends::makes_room(&self.streams) else {
                self.streams_refused += 1;
                return;
            };
            self.end_silently(oldest, end, sink);
        }
        let mut stream = Stream::begin(self.id, head, &self.socket, sink.clock, list);
        if stream.call.method.is_none() {
            self.name(&mut stream, list);
        }
        stream.call.client = self.peers[0].clone();
        self.streams.insert(head.stream, stream);
        if head.flags & flag::END_STREAM != 0 || head.note & headers::ENDS != 0 {
            self.request_ends(head, sink);
        }
    }

    /// Names a call whose path is older than the attach, if its entry was told before; else remembers the entry.
    fn name(&mut self, stream: &mut Stream, list: &HeaderList) {
        let candidates = Candidates::of(list);
        if let Some(method) = self.names.method_of(candidates) {
            stream.learn(&method);
        }
        if self.unnamed.len() == MAX_UNNAMED {
            self.unnamed.pop_front();
        }
        self.unnamed.push_back((stream.call.stream, candidates));
    }

    fn response_headers(&mut self, record: &Record<'_>, sink: &mut Sink<'_>) {
        let mut list = std::mem::take(&mut self.list);
        if let Some(Block { head, sound }) = self.directions[usize::from(SERVER)].headers(record, &mut list) {
            self.tracks_lost += u64::from(!sound);
            let ends = head.flags & flag::END_STREAM != 0;
            if let Some(stream) = self.streams.get_mut(&head.stream) {
                let after_data = head.note & headers::AFTER_DATA != 0;
                stream.response_headers(&list, stream.clock.unix_ns(head.begun_ns), ends, after_data);
            }
            if ends {
                self.response_ends(&head, sink);
            }
        }
        self.list = list;
    }

    fn field(&mut self, record: &Record<'_>, sink: &mut Sink<'_>) {
        let head = &record.head;
        let Some(stream) = self.streams.get_mut(&head.stream) else { return };
        if head.end != CLIENT {
            stream.response_field(record.data);
            return;
        }
        stream.request_field(head.field, record.data, head.note);
        // A plugin's request is told of when it is complete: its subject takes several fields.
        if head.note & field::COMPLETE != 0 && self.socket.kind == crate::call::SocketKind::Cri {
            tell_started(stream, sink);
        }
    }

    fn request_ends(&mut self, head: &Head, sink: &mut Sink<'_>) {
        let Some(stream) = self.streams.get_mut(&head.stream) else { return };
        stream.request_ended = true;
        if stream.is_ambiguous(CLIENT) {
            tell_started(stream, sink);
            self.finish_if_whole(head.stream, sink);
            return;
        }
        stream.request_written(stream.clock.unix_ns(head.time_ns), head.offset);
        tell_started(stream, sink);
        if let Some(reached) = self.reads[0].wait(head.offset, head.stream, Point::RequestRead) {
            self.reached(reached, sink);
        }
        self.finish_if_whole(head.stream, sink);
    }

    fn response_ends(&mut self, head: &Head, sink: &mut Sink<'_>) {
        let Some(stream) = self.streams.get_mut(&head.stream) else { return };
        let time_ns = stream.clock.unix_ns(head.time_ns);
        if stream.response_read != ResponseRead::NotAwaited {
            // The phases are those of the first message, whose end was told before; it may not have been read yet.
            stream.over(time_ns);
            self.finish_if_whole(head.stream, sink);
            return;
        }
        if stream.is_ambiguous(SERVER) {
            stream.over(time_ns);
            self.finish(head.stream, sink);
            return;
        }
        stream.response_written(time_ns);
        stream.response_read = ResponseRead::Awaited;
        if let Some(reached) = self.reads[1].wait(head.offset, head.stream, Point::ResponseRead) {
            self.reached(reached, sink);
        }
    }

    /// A second message: the phases are those of the first.
    fn streaming(&mut self, head: &Head, sink: &mut Sink<'_>) {
        let Some(stream) = self.streams.get_mut(&head.stream) else { return };
        stream.call.streaming = true;
        let time_ns = stream.clock.unix_ns(head.time_ns);
        let (direction, point) = if head.end == CLIENT {
            stream.call.points.request_written_ns = Some(time_ns);
            (0, Point::RequestRead)
        } else {
            stream.call.points.response_written_ns = Some(time_ns);
            stream.response_read = ResponseRead::Awaited;
            (1, Point::ResponseRead)
        };
        if let Some(reached) = self.reads[direction].wait(head.offset, head.stream, point) {
            self.reached(reached, sink);
        }
    }

    fn reset(&mut self, head: &Head, sink: &mut Sink<'_>) {
        if let Some(stream) = self.streams.get_mut(&head.stream) {
            stream.reset(head.note, stream.clock.unix_ns(head.time_ns));
            self.finish(head.stream, sink);
        }
    }

    /// The server takes no stream above the one that it names; it may name a lower one later.
    fn goes_away(&mut self, head: &Head, sink: &mut Sink<'_>) {
        let last = self.goaway.map_or(head.stream, |(last, _)| last.min(head.stream));
        self.goaway = Some((last, sink.clock.unix_ns(head.time_ns)));
        let not_taken: Vec<u32> = self.streams.range(last.saturating_add(1)..).map(|(id, _)| *id).collect();
        for id in not_taken {
            self.end_silently(id, Silent::NotTaken, sink);
        }
    }

    /// What the other end wrote was handed to this one.
    fn read(&mut self, end: usize, head: &Head, sink: &mut Sink<'_>) {
        if head.note & read::ALIGNED == 0 {
            return;
        }
        let mut all = Vec::new();
        self.reads[1 - end].read(head.offset, head.sequence, head.time_ns, |reached| all.push(reached));
        for reached in all {
            self.reached(reached, sink);
        }
    }

    fn reached(&mut self, reached: Reached, sink: &mut Sink<'_>) {
        let Some(stream) = self.streams.get_mut(&reached.stream) else { return };
        stream.reached(reached.point, reached.time_ns.map(|time_ns| stream.clock.unix_ns(time_ns)));
        if reached.point == Point::ResponseRead {
            self.finish_if_whole(reached.stream, sink);
        }
    }

    /// Finishes a call of which all was told. Its response may have been read before the write that ended its request was told
    /// of: that is told of when it returns.
    fn finish_if_whole(&mut self, id: u32, sink: &mut Sink<'_>) {
        let is_whole = |stream: &Stream| {
            let is_requested = stream.request_ended || stream.call.lost_track;
            is_requested && stream.over_ns.is_some() && stream.response_read == ResponseRead::Reached
        };
        if self.streams.get(&id).is_some_and(is_whole) {
            self.finish(id, sink);
        }
    }

    /// Over when both ends are closed. A client that closes as soon as it has its answer may be told of before the write of
    /// that answer is: a write is told of when it returns.
    fn close(&mut self, end: usize, head: &Head, sink: &mut Sink<'_>) -> bool {
        self.closed_ns[end] = Some(sink.clock.unix_ns(head.time_ns));
        if head.note != self.directions[end].sequence {
            self.lose(head.end, head.time_ns);
        }
        let [Some(client_ns), Some(_)] = self.closed_ns else { return false };
        self.abandon(client_ns, sink);
        true
    }

    /// Ends every open call.
    pub fn abandon(&mut self, time_ns: u64, sink: &mut Sink<'_>) {
        let mut open: Vec<u32> = self.streams.keys().copied().collect();
        open.sort_unstable();
        for id in open {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.abandoned(time_ns);
            }
            self.finish(id, sink);
        }
    }

    /// Ends calls that are over though no record says so. Says whether the connection is over: its client has closed it a while
    /// ago, and nobody reads any more.
    pub fn tick(&mut self, now_monotonic_ns: u64, sink: &mut Sink<'_>) -> bool {
        let last_taken = self.goaway.map_or(u32::MAX, |(last, _)| last);
        let end = |(id, stream): (&u32, &Stream)| Some((*id, ends::silent_end(stream, now_monotonic_ns, last_taken)?));
        let over: Vec<(u32, Silent)> = self.streams.iter().filter_map(end).collect();
        for (id, end) in over {
            self.end_silently(id, end, sink);
        }
        let now_ns = sink.clock.unix_ns(now_monotonic_ns);
        let Some(closed_ns) = self.closed_ns[0].filter(|closed| closed.saturating_add(CLOSED_FOR_NS) < now_ns) else {
            return false;
        };
        self.abandon(closed_ns, sink);
        true
    }

    fn end_silently(&mut self, id: u32, end: Silent, sink: &mut Sink<'_>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match end {
            Silent::NotRead => {}
            Silent::Lost => stream.end_is_lost(),
            Silent::NotTaken => stream.abandoned(self.goaway.map_or(0, |(_, time_ns)| time_ns)),
        }
        self.finish(id, sink);
    }

    /// A joined span told the method of a call whose `:path` is older than the attach: the entry has a name now.
    pub fn learn(&mut self, stream: u32, method: &Arc<str>) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.learn(method);
        }
        if let Some((_, candidates)) = self.unnamed.iter().find(|(unnamed, _)| *unnamed == stream) {
            self.names.learn(*candidates, method);
        }
    }

    fn finish(&mut self, id: u32, sink: &mut Sink<'_>) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        self.ends_unseen += u64::from(!stream.call.is_end_known());
        stream.drop_false_start();
        stream.guess();
        stream.call.client = self.peers[0].clone();
        stream.call.server = self.peers[1].clone();
        (sink.tell)(CallEvent::Finished(Box::new(stream.call)));
    }
}

fn tell_started(stream: &mut Stream, sink: &mut Sink<'_>) {
    if !stream.told {
        stream.told = true;
        stream.guess();
        (sink.tell)(CallEvent::Started(Box::new(stream.call.clone())));
    }
}
