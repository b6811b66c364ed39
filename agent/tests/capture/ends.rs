//! Calls whose end is not seen: which are given up, when, and what is said of them.

use std::collections::BTreeMap;

use spanlet::call::{Call, CallEvent, Status, StatusSource};
use spanlet::capture::Event;
use spanlet::capture::limits::{DEADLINE_MARGIN_NS, DOUBTED_FOR_NS, MAX_STREAMS, RESPONSE_READ_WITHIN_NS};
use spanlet::capture::offline::Offline;
use spanlet::capture::record::head_bytes;
use spanlet_abi::event::{CLIENT, Head, Kind, SERVER, headers};

const SECOND_NS: u64 = 1_000_000_000;
const BEGIN_NS: u64 = 1_000 * SECOND_NS;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;
const WHOLE: u32 = headers::FRAME_BEGINS | headers::FRAME_COMPLETE;
/// `:method: POST`, `:path: /s/m`, and with `grpc-timeout: 10S`; not indexed, so that a gap takes nothing from them.
const REQUEST: &[u8] = b"\x83\x04\x04/s/m";
const REQUEST_10_S: &[u8] = b"\x83\x04\x04/s/m\x00\x0cgrpc-timeout\x0310S";
const TIMEOUT_NS: u64 = 10 * SECOND_NS;
/// `:status: 200`
const RESPONSE: &[u8] = b"\x88";
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// A connection whose records are made by hand.
struct Connection {
    capture: Offline,
    finished: BTreeMap<u32, Call>,
    sequences: [u32; 2],
    now_ns: u64,
}

impl Connection {
    fn open() -> Self {
        let capture = Offline::with_clock_offset_ns(0);
        let mut connection = Self { capture, finished: BTreeMap::new(), sequences: [0; 2], now_ns: BEGIN_NS };
        connection.announce();
        connection
    }

    fn announce(&mut self) {
        self.take(Kind::Opened, Head { field: 1, ..Head::default() }, b"/run/containerd/containerd.sock");
    }

    fn take(&mut self, kind: Kind, head: Head, data: &[u8]) {
        let sequence = &mut self.sequences[usize::from(head.end)];
        *sequence += 1;
        let (time_ns, length) = (self.now_ns, data.len() as u32);
        let begun_ns = if head.begun_ns == 0 { time_ns } else { head.begun_ns };
        let head = Head { kind: kind as u16, sequence: *sequence, time_ns, begun_ns, length, captured: length, ..head };
        let bytes = [&head_bytes(&head), data].concat();
        self.with(|capture, tell| capture.entry(&bytes, tell).expect("is a record"));
    }

    fn with(&mut self, act: impl FnOnce(&mut Offline, &mut dyn FnMut(Event))) {
        let Self { capture, finished, .. } = self;
        act(capture, &mut |event| {
            if let Event::Call(CallEvent::Finished(call)) = event {
                let stream = call.stream;
                assert!(finished.insert(stream, *call).is_none(), "stream {stream} is over twice");
            }
        });
    }

    fn headers(&mut self, end: u8, stream: u32, flags: u8, block: &[u8]) {
        let head = Head { end, stream, flags: flags | END_HEADERS, note: WHOLE, ..Head::default() };
        self.take(Kind::Headers, head, block);
    }

    fn request(&mut self, stream: u32, block: &[u8]) {
        self.headers(CLIENT, stream, END_STREAM, block);
    }

    fn response(&mut self, stream: u32) {
        self.headers(SERVER, stream, 0, RESPONSE);
        let head = Head { end: SERVER, stream, flags: END_HEADERS | END_STREAM, offset: 1 << 40, ..Head::default() };
        self.take(Kind::Headers, Head { note: WHOLE | headers::AFTER_DATA, ..head }, TRAILERS);
    }

    /// The next record of this end is lost.
    fn lose(&mut self, end: u8) {
        self.sequences[usize::from(end)] += 1;
    }

    /// A record that tells of no call, which shows what was lost before it.
    fn show(&mut self, end: u8) {
        self.take(Kind::Settings, Head { end, ..Head::default() }, &[]);
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        let now_ns = self.now_ns;
        self.with(|capture, tell| capture.tick(now_ns, tell));
    }

    fn open_calls(&self) -> usize {
        self.capture.kept().streams
    }

    fn gap(&self, cause: &str) -> u64 {
        self.capture.gaps()[cause]
    }
}

#[test]
fn a_call_that_lost_nothing_is_never_given_up() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST_10_S);
    connection.request(3, REQUEST);
    connection.pass(30 * 24 * 3_600 * SECOND_NS);
    assert_eq!((connection.open_calls(), connection.finished.len()), (2, 0));
}

#[test]
fn after_a_gap_a_call_is_over_when_its_deadline_is_long_past() {
    for end in [CLIENT, SERVER] {
        let mut connection = Connection::open();
        connection.request(1, REQUEST_10_S);
        connection.pass(SECOND_NS);
        connection.lose(end);
        connection.show(end);
        connection.request(3, REQUEST_10_S); // behind the gap
        connection.pass(TIMEOUT_NS + DEADLINE_MARGIN_NS - SECOND_NS);
        assert_eq!(connection.open_calls(), 2, "it may still end by itself");
        connection.pass(1);
        assert_eq!((connection.open_calls(), connection.gap("call_end_unseen")), (1, 1));
        let call = &connection.finished[&1];
        assert_eq!((call.status, call.lost_track, call.is_end_known()), (None, true, false));
        assert_eq!(call.ended_ns, BEGIN_NS, "the request's end is the last that is known");
        connection.response(1); // after all
        assert_eq!(connection.finished.len(), 1);
    }
}

#[test]
fn what_is_known_of_a_lost_call_is_told() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST_10_S);
    connection.now_ns += 5 * SECOND_NS;
    connection.headers(SERVER, 1, 0, RESPONSE);
    connection.lose(SERVER);
    connection.show(SERVER);
    connection.pass(TIMEOUT_NS + DEADLINE_MARGIN_NS);
    let call = &connection.finished[&1];
    assert_eq!(call.points.response_started_ns, Some(BEGIN_NS + 5 * SECOND_NS));
    assert_eq!((call.ended_ns, call.is_end_known()), (BEGIN_NS + 5 * SECOND_NS, false));
}

/// The worker is told of losses by the programs' counters only, where no later record shows a gap.
#[test]
fn a_loss_that_shows_nowhere_puts_every_call_in_doubt() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST_10_S);
    connection.capture.doubt(connection.now_ns);
    connection.request(3, REQUEST_10_S);
    connection.pass(TIMEOUT_NS + DEADLINE_MARGIN_NS + 1);
    assert_eq!((connection.open_calls(), connection.gap("call_end_unseen")), (1, 1));
    assert!(connection.finished[&1].lost_track);
}

#[test]
fn without_a_known_deadline_a_call_in_doubt_has_a_day() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST);
    connection.request(3, REQUEST);
    connection.take(Kind::Streaming, Head { end: SERVER, stream: 3, ..Head::default() }, &[]);
    connection.pass(3 * DOUBTED_FOR_NS); // open for days before
    connection.lose(SERVER);
    connection.show(SERVER);
    connection.pass(DOUBTED_FOR_NS);
    assert_eq!(connection.finished.len(), 0);
    connection.pass(1);
    assert_eq!(connection.finished.keys().collect::<Vec<_>>(), [&1], "a stream may be silent for longer");
    connection.pass(30 * DOUBTED_FOR_NS);
    assert_eq!(connection.open_calls(), 1);
}

#[test]
fn calls_in_doubt_make_room_oldest_first_and_streams_last() {
    let mut connection = Connection::open();
    let id = |number: usize| 1 + 2 * number as u32;
    (0..MAX_STREAMS).for_each(|number| connection.request(id(number), REQUEST));
    connection.take(Kind::Streaming, Head { end: SERVER, stream: id(0), ..Head::default() }, &[]);
    connection.request(id(MAX_STREAMS), REQUEST);
    assert_eq!((connection.gap("stream_refused"), connection.finished.len()), (1, 0), "all of them are surely open");

    connection.lose(SERVER);
    connection.show(SERVER);
    (1..4).for_each(|number| connection.request(id(MAX_STREAMS + number), REQUEST));
    assert_eq!((connection.gap("stream_refused"), connection.open_calls()), (1, MAX_STREAMS));
    assert_eq!(connection.finished.keys().copied().collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert_eq!(connection.gap("call_end_unseen"), 3);

    // One that only waits for a reader goes before them, and nothing is unknown of it but that.
    connection.response(id(9));
    connection.request(id(MAX_STREAMS + 4), REQUEST);
    assert_eq!(connection.finished[&id(9)].status, Some(Status { code: 0, source: StatusSource::Wire }));
    assert_eq!(connection.gap("call_end_unseen"), 3);

    // At last the stream.
    (5..MAX_STREAMS + 5).for_each(|number| connection.request(id(MAX_STREAMS + number), REQUEST));
    assert!(connection.finished.contains_key(&id(0)));
    assert_eq!(connection.open_calls(), MAX_STREAMS);
}

#[test]
fn a_response_that_nobody_reads_is_over_after_a_while() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST);
    connection.response(1);
    connection.pass(RESPONSE_READ_WITHIN_NS);
    assert_eq!(connection.open_calls(), 1);
    connection.pass(1);
    assert_eq!((connection.open_calls(), connection.gap("call_end_unseen")), (0, 0));
}

#[test]
fn calls_that_a_server_does_not_take_fail_at_its_goaway() {
    let goaway = |connection: &mut Connection, stream| {
        connection.now_ns += SECOND_NS;
        connection.take(Kind::GoAway, Head { end: SERVER, stream, ..Head::default() }, &[]);
    };
    let unavailable = Some(Status { code: 14, source: StatusSource::Inferred });
    let mut connection = Connection::open();
    [1, 3, 5].into_iter().for_each(|stream| connection.request(stream, REQUEST));
    goaway(&mut connection, 0x7fff_ffff); // as grpc-go begins a graceful stop
    assert_eq!(connection.open_calls(), 3);
    goaway(&mut connection, 3);
    assert_eq!((connection.finished[&5].status, connection.finished[&5].ended_ns), (unavailable, connection.now_ns));
    connection.request(7, REQUEST); // the client had not read it yet
    connection.pass(SECOND_NS);
    assert_eq!((connection.finished[&7].status, connection.open_calls()), (unavailable, 2));
    connection.response(3);
    connection.take(Kind::GoAway, Head { stream: 0, ..Head::default() }, &[]); // the client's: of streams that servers open
    assert_eq!(connection.open_calls(), 2);
}

#[test]
fn a_close_tells_the_end_only_of_calls_that_lost_nothing() {
    let close = |connection: &mut Connection| {
        for end in [CLIENT, SERVER] {
            let note = connection.sequences[usize::from(end)];
            connection.take(Kind::Closed, Head { end, note, ..Head::default() }, &[]);
        }
    };
    let mut connection = Connection::open();
    connection.request(1, REQUEST);
    connection.lose(SERVER);
    connection.show(SERVER);
    connection.request(3, REQUEST);
    connection.now_ns += SECOND_NS;
    close(&mut connection);
    assert_eq!((connection.finished[&1].status, connection.finished[&1].ended_ns), (None, BEGIN_NS));
    assert_eq!(connection.finished[&3].status, Some(Status { code: 14, source: StatusSource::Inferred }));
    assert_eq!(connection.finished[&3].ended_ns, connection.now_ns);
    assert_eq!(connection.gap("call_end_unseen"), 1);

    // What was lost last shows by the close itself.
    let mut connection = Connection::open();
    connection.request(1, REQUEST);
    connection.lose(SERVER);
    close(&mut connection);
    assert_eq!((connection.finished[&1].status, connection.gap("call_end_unseen")), (None, 1));
}

/// The programs are detached: how the calls go on is not seen, which is no failure of theirs.
#[test]
fn open_calls_do_not_fail_because_nobody_looks_any_more() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST);
    let now_ns = connection.now_ns + SECOND_NS;
    connection.with(|capture, tell| capture.abandon(now_ns, tell));
    let call = &connection.finished[&1];
    assert_eq!((call.status, call.ended_ns, call.lost_track), (None, BEGIN_NS, true));
    assert_eq!(connection.gap("call_end_unseen"), 1);
}

/// Inodes come back; the close of the connection that had it before was lost.
#[test]
fn a_connection_that_is_counted_anew_is_another_one() {
    let mut connection = Connection::open();
    connection.request(1, REQUEST);
    connection.sequences = [0; 2];
    connection.now_ns += SECOND_NS;
    connection.announce();
    assert_eq!((connection.finished[&1].status, connection.gap("close_unseen")), (None, 1));
    connection.finished.clear();
    connection.request(1, REQUEST);
    connection.response(1);
    connection.pass(RESPONSE_READ_WITHIN_NS + 1);
    assert_eq!(connection.finished[&1].method.as_deref(), Some("s/m"));
    assert_eq!(connection.gap("track_lost"), 1);
}

#[test]
fn a_block_whose_beginning_is_lost_is_not_read_as_another() {
    let part = |note: u32, flags: u8| Head { stream: 3, flags, note, ..Head::default() };
    let begins = part(headers::FRAME_BEGINS, END_HEADERS);
    let goes_on = part(headers::FRAME_COMPLETE, END_HEADERS);
    let mut connection = Connection::open();
    connection.request(1, REQUEST);

    // The first part is lost; the rest would read as a path of its own.
    connection.lose(CLIENT);
    connection.take(Kind::Headers, goes_on, REQUEST);
    // A frame's middle is lost.
    connection.take(Kind::Headers, Head { stream: 5, ..begins }, b"\x83\x04");
    connection.lose(CLIENT);
    connection.take(Kind::Headers, Head { stream: 5, ..goes_on }, b"\x04/s/m");
    // The HEADERS frame is lost, its CONTINUATION is not: when the call began is not known, so it is not followed.
    connection.lose(CLIENT);
    let continuation = part(WHOLE | headers::CONTINUATION, END_HEADERS);
    connection.take(Kind::Headers, Head { stream: 7, ..continuation }, REQUEST);

    let now_ns = connection.now_ns;
    connection.with(|capture, tell| capture.abandon(now_ns, tell));
    let methods: Vec<_> = connection.finished.iter().map(|(id, call)| (*id, call.method.as_deref())).collect();
    assert_eq!(methods, [(1, Some("s/m")), (3, None), (5, None)]);
}

#[test]
fn a_block_of_several_frames_begins_and_ends_as_its_first_says() {
    let mut connection = Connection::open();
    let first = Head { stream: 1, flags: END_STREAM, note: WHOLE, begun_ns: BEGIN_NS - 9, ..Head::default() };
    connection.take(Kind::Headers, first, &REQUEST[..3]);
    let second = Head { flags: END_HEADERS, note: WHOLE | headers::CONTINUATION, begun_ns: BEGIN_NS, ..first };
    connection.take(Kind::Headers, second, &REQUEST[3..]);
    connection.response(1);
    connection.pass(RESPONSE_READ_WITHIN_NS + 1);
    let call = &connection.finished[&1];
    assert_eq!((call.method.as_deref(), call.started_ns), (Some("s/m"), BEGIN_NS - 9));
    assert_eq!(call.points.request_written_ns, Some(BEGIN_NS), "END_STREAM stands on the first frame");
}
