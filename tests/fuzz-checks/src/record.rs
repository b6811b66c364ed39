//! Target `record`: ring records through capture's decoder, up to the calls that it tells of.
//!
//! Input: records in a form of their own ([`RecordInput`]), each a head of 24 octets and its data. What must fit together in real
//! records is relative there (sequence numbers count on, times go on from the one before), so that an input that was mutated in
//! one place still reaches far. Octets that are no record at all come by [`RAW`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use spanlet::call::{Call, CallEvent};
use spanlet::capture::Event;
use spanlet::capture::limits::{
    MAX_CONNECTIONS, MAX_EARLY, MAX_EXECS, MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEADER_BYTES, MAX_STREAMS, MAX_UNNAMED,
    MAX_WAITING,
};
use spanlet::capture::offline::{Kept, Offline};
use spanlet::capture::record::head_bytes;
use spanlet::exec::Exec;
use spanlet_abi::event::{CLIENT, HEAD_BYTES, Head, Kind, headers};

use crate::input::Input;

/// Values of the first octet that are not a record's kind: a tick of the clock, a method learnt, a clock set anew, octets as they
/// stand, a socket that is nowhere any more, records lost that nobody knows of.
const TICK: u8 = 16;
const LEARN: u8 = 17;
const SET_CLOCK: u8 = 18;
const RAW: u8 = 19;
const GONE: u8 = 20;
const DOUBT: u8 = 21;

/// Connections that an input can name by number; repeated records can open more.
const NUMBERED_CONNECTIONS: u64 = 8;
/// Records that one input may come to, so that none takes long; too few for most caps, which have a test of their own.
const MAX_RECORDS: usize = 200;
/// Records between two looks at what is kept: a look goes through all open calls.
const LOOK_EVERY: usize = 64;
/// Monotonic time before the first record.
const START_NS: u64 = 1_000_000_000_000;

/// How far a record's time is from the one before, in its two octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeStep {
    /// Microseconds; negative where records overtake each other.
    Micros(i16),
    /// To the end of time.
    Never,
    /// To its beginning.
    Zero,
}

/// One record of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordInput<'a> {
    /// A [`Kind`], or one of the constants above.
    pub what: u8,
    pub end: u8,
    pub flags: u8,
    /// Which of the eight connections.
    pub connection: u8,
    pub note: u8,
    pub field: u8,
    /// Added to the sequence number that is due: 0 is no gap.
    pub gap: i8,
    pub process: u8,
    pub stream: u16,
    pub step: TimeStep,
    /// Microseconds by which the frame began before.
    pub lead: u16,
    pub offset: u32,
    /// Bytes told of beyond those captured.
    pub cut: u8,
    /// From [`Self::REPEAT`] on, the record comes 1,024 times or, with what n is above that, 2^n times as often: `Opened` of one connection after
    /// another, `Exec` and `Exit` likewise, others of one stream after another; with [`Self::REPEAT_SAME`] of the same ones. Once otherwise: repeated records
    /// take long and are only good for reaching caps.
    pub repeat: u8,
    pub data: &'a [u8],
}

/// See the module.
pub fn record(input: &[u8]) {
    record_up_to(input, MAX_RECORDS);
}

/// The same with another limit to the number of records; tells how much was kept at most.
pub fn record_up_to(input: &[u8], max_records: usize) -> Kept {
    let mut run = Run::new(max_records);
    let mut input = Input(input);
    while !input.is_empty() && run.records < max_records {
        let step = RecordInput::read(&mut input);
        run.take(&step);
    }
    run.finish()
}

// === impl RecordInput ===

impl<'a> RecordInput<'a> {
    /// 0x7f repeats a record 8,192 times: [`MAX_WAITING`] is reached.
    pub const REPEAT: u8 = 0x7c;
    pub const REPEAT_SAME: u8 = 0x80;

    /// A record of this kind, of the client of connection 0, on stream 1 where that matters, and nothing else.
    pub fn of(kind: Kind) -> Self {
        let step = TimeStep::Micros(0);
        let (end, flags, connection, note, field, gap, process) = (CLIENT, 0, 0, 0, 0, 0, 0);
        let (what, stream, lead, offset, cut, repeat, data) = (kind as u8, 1, 0, 0, 0, 0, &[]);
        Self { what, end, flags, connection, note, field, gap, process, stream, step, lead, offset, cut, repeat, data }
    }

    fn read(input: &mut Input<'a>) -> Self {
        let [what, end, flags, connection, note, field, gap, process] = input.array();
        let stream = input.word();
        let step = TimeStep::from_word(input.word());
        let lead = input.word();
        let offset = u32::from_le_bytes(input.array());
        let [cut, repeat] = input.array();
        let length = input.word();
        let data = input.take(usize::from(length));
        let gap = gap.cast_signed();
        Self { what, end, flags, connection, note, field, gap, process, stream, step, lead, offset, cut, repeat, data }
    }

    /// What an input holds of it: 24 octets and the data.
    ///
    /// # Panics
    /// When the data is longer than 65,535 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let gap = self.gap.cast_unsigned();
        let mut bytes =
            vec![self.what, self.end, self.flags, self.connection, self.note, self.field, gap, self.process];
        bytes.extend(self.stream.to_le_bytes());
        bytes.extend(self.step.to_word().to_le_bytes());
        bytes.extend(self.lead.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend([self.cut, self.repeat]);
        let length = u16::try_from(self.data.len()).expect("a record's data is a few hundred bytes");
        bytes.extend(length.to_le_bytes());
        bytes.extend(self.data);
        bytes
    }

    fn times(&self) -> usize {
        match self.repeat & !Self::REPEAT_SAME {
            exponent @ Self::REPEAT.. => 1024 << (exponent - Self::REPEAT),
            _ => 1,
        }
    }
}

// === impl TimeStep ===

impl TimeStep {
    fn from_word(word: u16) -> Self {
        match word.cast_signed() {
            i16::MAX => Self::Never,
            i16::MIN => Self::Zero,
            micros => Self::Micros(micros),
        }
    }

    fn to_word(self) -> u16 {
        let word = match self {
            Self::Never => i16::MAX,
            Self::Zero => i16::MIN,
            Self::Micros(micros) => micros,
        };
        word.cast_unsigned()
    }

    fn after(self, time_ns: u64) -> u64 {
        match self {
            Self::Never => u64::MAX,
            Self::Zero => 0,
            Self::Micros(micros) => time_ns.saturating_add_signed(i64::from(micros) * 1_000),
        }
    }
}

/// A decoder, and what it may tell.
struct Run {
    capture: Offline,
    model: Model,
    now_ns: u64,
    /// Sequence numbers by connection, and by end and whether it reads.
    sequences: HashMap<(u64, u8, bool), u32>,
    records: usize,
    max_records: usize,
    most: Kept,
}

impl Run {
    fn new(max_records: usize) -> Self {
        Self {
            capture: Offline::with_clock_offset_ns(0),
            model: Model::default(),
            now_ns: START_NS,
            sequences: HashMap::new(),
            records: 0,
            max_records,
            most: Kept::default(),
        }
    }

    fn take(&mut self, step: &RecordInput<'_>) {
        self.now_ns = step.step.after(self.now_ns);
        let model = &mut self.model;
        match step.what {
            TICK => self.capture.tick(self.now_ns, &mut |event| model.told(&event)),
            LEARN => {
                let method: Arc<str> = String::from_utf8_lossy(step.data).into();
                self.capture.learn(u64::from(step.connection) % NUMBERED_CONNECTIONS, u32::from(step.stream), &method);
            }
            SET_CLOCK => self.capture.set_clock_offset_ns(i64::from(step.offset.cast_signed()) * 1_000),
            GONE => {
                let connection = u64::from(step.connection) % NUMBERED_CONNECTIONS;
                let lost = step.flags & 1 != 0;
                self.capture.closed_unseen(connection, lost, self.now_ns, &mut |event| model.told(&event));
            }
            DOUBT => self.capture.doubt(self.now_ns),
            RAW => self.take_record(step.data),
            _ => {
                for turn in 0..step.times().min(self.max_records - self.records) {
                    let bytes = self.lay_out(step, turn);
                    self.take_record(&bytes);
                }
            }
        }
        self.records += 1; // others than records count, too: a tick goes through all open calls
    }

    /// A record as the kernel programs would write it.
    fn lay_out(&mut self, step: &RecordInput<'_>, turn: usize) -> Vec<u8> {
        let turn = if step.repeat & RecordInput::REPEAT_SAME == 0 { turn } else { 0 };
        let kind = Kind::from_number(u16::from(step.what));
        let is_numbered = matches!(kind, Some(Kind::Opened | Kind::Exec | Kind::Exit));
        let other = if is_numbered { turn as u64 * NUMBERED_CONNECTIONS } else { 0 };
        let connection = u64::from(step.connection) % NUMBERED_CONNECTIONS + other;
        let reads = kind == Some(Kind::Read);
        let end = step.end & 1;
        let sequence = self.sequences.entry((connection, end, reads)).or_default();
        *sequence = sequence.wrapping_add(1).wrapping_add_signed(i32::from(step.gap));
        let head = Head {
            kind: u16::from(step.what),
            end,
            flags: step.flags,
            sequence: *sequence,
            connection,
            time_ns: self.now_ns,
            begun_ns: self.now_ns.saturating_sub(u64::from(step.lead) * 1_000),
            offset: u64::from(step.offset),
            stream: u32::from(step.stream) + if is_numbered { 0 } else { 2 * turn as u32 },
            process: u32::from(step.process),
            length: step.data.len() as u32 + u32::from(step.cut),
            captured: step.data.len() as u32,
            note: u32::from(step.note),
            field: u32::from(step.field),
        };
        [&head_bytes(&head), step.data].concat()
    }

    fn take_record(&mut self, bytes: &[u8]) {
        // One by one, so that it is known of which a process's end is told; how an entry is split is tested beside its reader.
        for record in split(bytes) {
            self.model.expect(record);
            let model = &mut self.model;
            let result = self.capture.entry(record, &mut |event| model.told(&event));
            assert_eq!(result.is_ok(), is_sound(record), "a sound record is taken, no other: {result:?}");
        }
        self.records += 1;
        if self.records.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
    }

    /// Memory is bounded by the caps, whatever the records say.
    fn look(&mut self) {
        let kept = self.capture.kept();
        assert!(kept.connections <= MAX_CONNECTIONS, "{kept:?}");
        assert!(kept.execs <= MAX_EXECS, "{kept:?}");
        assert!(kept.streams <= MAX_STREAMS, "{kept:?}");
        assert!(kept.waiting_points <= 2 * MAX_WAITING, "{kept:?}");
        assert!(kept.early <= MAX_EARLY, "{kept:?}");
        assert!(kept.unnamed <= MAX_UNNAMED, "{kept:?}");
        assert!(kept.header_bytes <= 2 * MAX_HEADER_BYTES, "{kept:?}");
        assert!(kept.field_bytes <= MAX_FIELDS * MAX_FIELD_BYTES, "{kept:?}");
        self.most = self.most.most(kept);
    }

    /// The end of capture: what is open ends, and then nothing is kept.
    fn finish(mut self) -> Kept {
        self.look();
        let (now_ns, model) = (self.now_ns, &mut self.model);
        self.capture.abandon(now_ns, &mut |event| model.told(&event));
        assert!(model.running.is_empty(), "every call that was told to run is told to be over");
        assert_eq!(self.capture.kept(), Kept::default(), "nothing is kept");
        self.most
    }
}

/// An entry's records, and behind them what is none.
fn split(mut entry: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while is_sound(entry) {
        let taken = (HEAD_BYTES + captured(entry)).next_multiple_of(8).min(entry.len());
        let (record, rest) = entry.split_at(taken);
        records.push(record);
        entry = rest;
    }
    if !entry.is_empty() {
        records.push(entry);
    }
    records
}

/// What a record says that it has behind its head.
fn captured(record: &[u8]) -> usize {
    record.get(52..56).map_or(0, |bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}

/// Whether the bytes are of a known kind and hold what they claim.
fn is_sound(bytes: &[u8]) -> bool {
    let Some((head, data)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return false };
    let kind = u16::from_ne_bytes([head[0], head[1]]);
    usize::from(kind) < Kind::COUNT && captured(bytes) <= data.len()
}

/// Which calls there may be: told of independently of the decoder, from the heads alone.
#[derive(Debug, Default)]
struct Model {
    /// Calls whose request headers came and that are not over, by connection and stream.
    possible: HashSet<(u64, u32)>,
    /// Those that were told to have started.
    running: HashMap<(u64, u32), u64>,
    /// Which connection or process the latest record is of.
    latest: u64,
    /// Processes that were told to run.
    processes: HashSet<u64>,
}

impl Model {
    /// Request headers are about to be taken in: a call may begin with them.
    fn expect(&mut self, bytes: &[u8]) {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>().filter(|_| is_sound(bytes)) else { return };
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let kind = u16::from_ne_bytes([head[0], head[1]]);
        let connection = u64::from(word(8)) | u64::from(word(12)) << 32;
        self.latest = connection;
        if kind == Kind::Headers as u16 && head[2] == CLIENT && word(56) & headers::FRAME_COMPLETE != 0 {
            self.possible.insert((connection, word(40)));
        }
    }

    fn told(&mut self, event: &Event) {
        match event {
            Event::Call(CallEvent::Started(call)) => {
                check_call(call);
                assert!(self.possible.contains(&key(call)), "a call without request headers: {call:?}");
                let before = self.running.insert(key(call), call.started_ns);
                assert_eq!(before, None, "started twice: {call:?}");
            }
            Event::Call(CallEvent::Finished(call)) => {
                check_call(call);
                assert!(self.possible.remove(&key(call)), "finished twice, or never begun: {call:?}");
                if let Some(started_ns) = self.running.remove(&key(call)) {
                    assert_eq!(started_ns, call.started_ns, "a call begins once: {call:?}");
                }
            }
            Event::Exec(exec) => self.told_exec(exec),
        }
    }

    /// A process may execute one program after another; it ends once.
    fn told_exec(&mut self, exec: &Exec) {
        match exec.ended_ns {
            None => drop(self.processes.insert(self.latest)),
            Some(ended_ns) => {
                assert!(ended_ns >= exec.started_ns, "over before it began: {exec:?}");
                assert!(self.processes.remove(&self.latest), "an end without a beginning: {exec:?}");
            }
        }
    }
}

fn key(call: &Call) -> (u64, u32) {
    (call.connection, call.stream)
}

fn check_call(call: &Call) {
    assert!(call.ended_ns >= call.started_ns, "over before it began: {call:?}");
    assert_eq!(call.method.is_none(), call.naming == spanlet::call::Naming::Unknown, "{call:?}");
}
