//! Capture's user side without a kernel: ring records in, what capture tells out. For fuzzing and for tools that read a file of
//! `capture.dump_events`; the running stage has its own loop in `worker`.
//!
//! The clock stands at a distance that is given and no process is looked up, so that the same records always tell the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Event;
use super::clock::Clock;
use super::decode::Decoder;
pub use super::decode::Kept;
use super::process::Containers;
use super::record::{RecordError, records};

/// A decoder of ring records.
#[derive(Debug)]
pub struct Offline {
    decoder: Decoder,
    clock: Clock,
}

impl Offline {
    /// `offset_ns` is the Unix time at monotonic zero.
    pub fn with_clock_offset_ns(offset_ns: i64) -> Self {
        Self { decoder: Decoder::with_containers(Containers::unknown()), clock: Clock::with_offset_ns(offset_ns) }
    }

    /// The wall clock was set.
    pub fn set_clock_offset_ns(&mut self, offset_ns: i64) {
        self.clock = Clock::with_offset_ns(offset_ns);
    }

    /// Takes in the records of one entry as it came from the ring.
    ///
    /// # Errors
    /// When the bytes are no record, or what follows one is none.
    pub fn entry(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Event)) -> Result<(), RecordError> {
        for record in records(bytes) {
            self.decoder.record(&record?, self.clock, tell);
        }
        Ok(())
    }

    /// What the worker does every second, at a monotonic time in nanoseconds.
    pub fn tick(&mut self, monotonic_ns: u64, tell: &mut dyn FnMut(Event)) {
        self.decoder.tick(monotonic_ns, self.clock, tell);
    }

    /// A connection's client is nowhere any more, and no close was told; `lost` if records of it may have been lost.
    pub fn closed_unseen(&mut self, connection: u64, lost: bool, monotonic_ns: u64, tell: &mut dyn FnMut(Event)) {
        let now_unix_ns = self.clock.unix_ns(monotonic_ns);
        self.decoder.closed_unseen(connection, lost, now_unix_ns, self.clock, tell);
    }

    /// The programs are detached.
    pub fn abandon(&mut self, monotonic_ns: u64, tell: &mut dyn FnMut(Event)) {
        let now_unix_ns = self.clock.unix_ns(monotonic_ns);
        self.decoder.abandon(now_unix_ns, self.clock, tell);
    }

    /// A joined span told the method of a call.
    pub fn learn(&mut self, connection: u64, stream: u32, method: &Arc<str>) {
        self.decoder.learn(connection, stream, method);
    }

    /// Records were lost, nobody knows of which connection.
    pub fn doubt(&mut self, monotonic_ns: u64) {
        self.decoder.doubt(monotonic_ns);
    }

    /// What was given up so far, by cause.
    pub fn gaps(&self) -> BTreeMap<&'static str, u64> {
        self.decoder.gaps().by_cause().into_iter().collect()
    }

    /// How much is kept now.
    pub fn kept(&self) -> Kept {
        self.decoder.kept()
    }
}

#[cfg(test)]
mod tests {
    use spanlet_abi::event::{CLIENT, Head, Kind, SERVER, headers, read};
    use spanlet_http2::frame::flag;

    use super::super::limits::{EARLY_FOR_NS, MAX_EARLY, MAX_FIELD_BYTES, MAX_HEADER_BYTES};
    use super::super::record::head_bytes;
    use super::*;
    use crate::call::{Call, CallEvent, SocketKind};

    const WHOLE: u32 = headers::FRAME_BEGINS | headers::FRAME_COMPLETE;
    /// `:method: POST`, `:scheme: http`.
    const REQUEST: &[u8] = &[0x83, 0x86];

    /// A decoder, and the calls that it told to be over.
    struct Run {
        capture: Offline,
        finished: Vec<Call>,
    }

    impl Run {
        /// With one connection, announced in record 1.
        fn new() -> Self {
            let mut run = Self { capture: Offline::with_clock_offset_ns(0), finished: Vec::new() };
            run.announce(1);
            run
        }

        fn announce(&mut self, sequence: u32) {
            let head = Head { sequence, field: SocketKind::Cri as u32, ..Head::default() };
            self.take(Kind::Opened, head, b"/run/containerd/containerd.sock");
        }

        fn take(&mut self, kind: Kind, head: Head, data: &[u8]) {
            let head = Head { kind: kind as u16, length: data.len() as u32, captured: data.len() as u32, ..head };
            let record = [&head_bytes(&head), data].concat();
            let finished = &mut self.finished;
            self.capture.entry(&record, &mut |event| finished.extend(over(event))).expect("is a record");
        }

        /// The connection is found to be over, and nothing is known to be lost.
        fn abandon(mut self) -> Vec<Call> {
            let finished = &mut self.finished;
            self.capture.closed_unseen(0, false, 1_000, &mut |event| finished.extend(over(event)));
            self.finished
        }
    }

    fn over(event: Event) -> Option<Call> {
        if let Event::Call(CallEvent::Finished(call)) = event { Some(*call) } else { None }
    }

    /// A whole header block that is the last frame of its end.
    fn last_headers(end: u8, sequence: u32, time_ns: u64) -> Head {
        let flags = flag::END_HEADERS | flag::END_STREAM;
        Head { end, sequence, time_ns, begun_ns: time_ns, flags, note: WHOLE, stream: 1, offset: 9, ..Head::default() }
    }

    #[test]
    fn no_call_ends_before_it_began() {
        for (response_ns, ended_ns) in [(200, 1_200), (50, 1_100)] {
            let mut run = Run::new();
            run.capture.set_clock_offset_ns(1_000);
            run.take(Kind::Headers, last_headers(CLIENT, 2, 100), REQUEST);
            run.capture.set_clock_offset_ns(0); // set back while the call runs
            run.take(Kind::Headers, last_headers(SERVER, 1, response_ns), &[0x88]);
            let calls = run.abandon();
            assert_eq!((calls[0].started_ns, calls[0].ended_ns), (1_100, ended_ns));
        }
    }

    /// The client was handed all that a server wrote by [`last_headers`].
    fn read() -> Head {
        Head { sequence: 1, time_ns: 300, offset: 9, note: read::ALIGNED, ..Head::default() }
    }

    #[test]
    fn an_answer_that_is_told_before_its_call_is_the_calls() {
        let mut run = Run::new();
        run.take(Kind::Headers, last_headers(SERVER, 1, 200), &[0x88]);
        run.take(Kind::Read, read(), &[]);
        run.take(Kind::Closed, Head { end: SERVER, note: 1, ..Head::default() }, &[]);
        assert_eq!((run.finished.len(), run.capture.kept().early), (0, 2));
        run.take(Kind::Headers, last_headers(CLIENT, 2, 100), REQUEST);
        assert_eq!(run.capture.kept().early, 0);
        let call = run.finished.pop().expect("it is over");
        assert_eq!((call.points.response_started_ns, call.points.response_read_ns), (Some(200), Some(300)));
        assert!(!call.lost_track, "{call:?}");
    }

    #[test]
    fn a_close_that_is_told_after_the_end_was_found_is_no_stray() {
        let mut run = Run::new();
        run.take(Kind::Headers, last_headers(CLIENT, 2, 100), REQUEST);
        run.capture.closed_unseen(0, false, 1_000, &mut |_| {});
        run.take(Kind::Closed, Head { end: SERVER, ..Head::default() }, &[]);
        assert_eq!(run.capture.gaps()["stray_record"], 0);
        run.take(Kind::Settings, Head { end: SERVER, ..Head::default() }, &[]);
        assert_eq!(run.capture.gaps()["stray_record"], 1);
    }

    #[test]
    fn a_read_just_before_its_write_waited_for_nothing() {
        let ms_ns = 1_000_000;
        let call_of = |request_read_ns, response_written_ns| {
            let mut run = Run::new();
            run.take(Kind::Read, Head { end: SERVER, time_ns: request_read_ns, ..read() }, &[]);
            run.take(Kind::Headers, last_headers(CLIENT, 2, 500 * ms_ns), REQUEST);
            run.take(Kind::Headers, last_headers(SERVER, 1, response_written_ns), &[0x88]);
            run.take(Kind::Read, Head { time_ns: 600 * ms_ns, ..read() }, &[]);
            run.finished.pop().expect("it is over")
        };
        let call = call_of(450 * ms_ns, 650 * ms_ns);
        assert_eq!((call.started_ns, call.ended_ns), (500 * ms_ns, 600 * ms_ns));
        let points = [(500, 500), (450, 650), (650, 650), (650, 650)];
        assert_eq!(call.points.phases(), points.map(|(from, to)| Some((from * ms_ns, to * ms_ns))));
        assert_eq!((call.points.request_wait_ns(), call.points.response_wait_ns()), (Some(0), Some(0)));
        // So much earlier it is no read of this write.
        let call = call_of(400 * ms_ns, 700 * ms_ns);
        assert_eq!((call.points.request_wait_ns(), call.points.response_wait_ns()), (None, None));
    }

    #[test]
    fn an_answer_waits_for_its_call_no_longer_than_it_may_come() {
        type End = fn(&mut Run);
        let ends: [(&str, End); 4] = [
            ("a gap", |run| run.take(Kind::Settings, Head { sequence: 9, ..Head::default() }, &[])),
            ("a close", |run| run.take(Kind::Closed, Head { note: 1, ..Head::default() }, &[])),
            ("time", |run| run.capture.tick(200 + EARLY_FOR_NS + 1, &mut |_| {})),
            ("the room", |run| {
                for sequence in 2..=MAX_EARLY as u32 + 1 {
                    run.take(Kind::Settings, Head { end: SERVER, sequence, ..Head::default() }, &[]);
                }
            }),
        ];
        for (what, end) in ends {
            let mut run = Run::new();
            run.take(Kind::Headers, last_headers(SERVER, 1, 200), &[0x88]);
            run.capture.tick(200 + EARLY_FOR_NS, &mut |_| {});
            assert_eq!(run.capture.kept().early, 1, "{what}");
            end(&mut run);
            assert_eq!(run.capture.kept().early, 0, "{what}");
        }
    }

    #[test]
    fn a_call_whose_answer_is_read_before_its_request_is_told_of_waits_for_that() {
        let mut run = Run::new();
        run.take(Kind::Headers, Head { flags: flag::END_HEADERS, ..last_headers(CLIENT, 2, 100) }, REQUEST);
        run.take(Kind::Headers, last_headers(SERVER, 1, 200), &[0x88]);
        run.take(Kind::Read, read(), &[]);
        assert_eq!(run.finished.len(), 0);
        run.take(Kind::DataEnd, Head { sequence: 3, time_ns: 150, offset: 20, stream: 1, ..Head::default() }, &[]);
        let call = run.finished.pop().expect("it is over");
        assert_eq!((call.points.request_written_ns, call.points.response_read_ns), (Some(150), Some(300)));
    }

    #[test]
    fn a_frame_or_field_that_does_not_end_is_cut() {
        let mut run = Run::new();
        run.take(Kind::Headers, last_headers(CLIENT, 2, 100), REQUEST);
        run.take(Kind::Headers, Head { flags: 0, stream: 3, ..last_headers(CLIENT, 3, 100) }, REQUEST);
        run.take(Kind::Headers, Head { note: headers::FRAME_BEGINS, ..last_headers(SERVER, 1, 100) }, &[0; 300]);
        for sequence in 2..10 {
            run.take(Kind::Headers, Head { note: 0, ..last_headers(SERVER, sequence, 100) }, &[0; 300]);
        }
        assert_eq!(run.capture.kept().header_bytes, MAX_HEADER_BYTES + REQUEST.len());

        let mut run = Run::new();
        run.take(Kind::Headers, Head { flags: flag::END_HEADERS, ..last_headers(CLIENT, 2, 100) }, REQUEST);
        for sequence in 3..10 {
            let note = if sequence == 3 { spanlet_abi::event::field::BEGINS } else { 0 };
            let head = Head { sequence, stream: 1, field: 1, note, ..Head::default() };
            run.take(Kind::Field, head, &[b'a'; 300]);
        }
        assert_eq!(run.capture.kept().field_bytes, MAX_FIELD_BYTES);
    }

    #[test]
    fn a_gap_before_a_second_announcement_is_one() {
        for (sequence, lost_track) in [(3, false), (5, true)] {
            let mut run = Run::new();
            run.take(Kind::Headers, last_headers(CLIENT, 2, 100), REQUEST);
            run.announce(sequence);
            assert_eq!(run.abandon()[0].lost_track, lost_track, "{sequence}");
        }
    }
}
