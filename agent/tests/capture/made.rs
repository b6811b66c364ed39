//! A connection as none was recorded: a hundred calls at a time of every kind, with messages beyond 32 KiB, whose frames stand
//! side by side in writes that are cut in their midst.

use std::collections::BTreeMap;

use fastrand::Rng;
use spanlet_abi::event::{CLIENT, SERVER};

use crate::encoder::{Encoder, Representation};
use crate::recorded::{Recorded, Transfer};

const AT_A_TIME: usize = 100;
const CALLS: u32 = 300;
/// Streams that the server does not take any more when it goes away.
const NOT_TAKEN: u32 = 5;
/// Go's gRPC gathers so much before it writes, and cuts the frame that passes it.
pub(crate) const GATHERED_BYTES: usize = 32 << 10;
const FRAME_BYTES: usize = 16 << 10;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const METHODS: [&str; 3] = ["Version", "ListPodSandbox", "ListContainers"];

/// How a call is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With a message in both directions; bytes of request and response.
    Unary(usize, usize),
    /// Messages of the server.
    Stream(u32),
    /// Response headers, then trailers.
    NoMessage,
    TrailersOnly,
    ResetByServer,
    Cancelled,
    /// Not before the connection is closed.
    Open,
    NotTaken,
}

/// What is to be told of a call.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) kind: Kind,
    pub(crate) method: String,
    pub(crate) status: u8,
}

/// The connection, and its calls by stream.
pub(crate) fn connection(seed: u64) -> (Recorded, BTreeMap<u32, Made>) {
    let mut maker = Maker::new(seed);
    let mut running: Vec<(u32, Vec<Step>)> = Vec::new();
    let mut next = 1;
    let last = 2 * CALLS - 1;
    while next <= last || running.iter().any(|(_, steps)| !steps.is_empty()) {
        running.retain(|(_, steps)| !steps.is_empty());
        // HEADERS of a client come in the order of their streams: a new call begins at once.
        if next <= last && running.len() < AT_A_TIME {
            let mut steps = maker.plan(next, last - next < 2 * NOT_TAKEN);
            maker.write(next, steps.remove(0));
            running.push((next, steps));
            next += 2;
            continue;
        }
        let pick = maker.rng.usize(..running.len());
        let (stream, steps) = &mut running[pick];
        maker.write(*stream, steps.remove(0));
    }
    maker.go_away(last - 2 * NOT_TAKEN);
    maker.finish()
}

/// What one end does next on a stream.
enum Step {
    Headers(u8, u8, Vec<(&'static str, String)>),
    Data(u8, u8, Vec<u8>),
    Reset(u8, u32),
}

struct Maker {
    rng: Rng,
    encoders: [Encoder; 2],
    bytes: [Vec<u8>; 2],
    /// Bytes that were written, and read by the other end.
    written: [usize; 2],
    read: [usize; 2],
    transfers: Vec<Transfer>,
    made: BTreeMap<u32, Made>,
    now_ns: u64,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let mut maker = Self {
            rng: Rng::with_seed(seed),
            encoders: [Encoder::new(), Encoder::new()],
            bytes: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Vec::new()],
            written: [0; 2],
            read: [0; 2],
            transfers: Vec::new(),
            made: BTreeMap::new(),
            now_ns: 1_000_000_000_000,
        };
        [CLIENT, SERVER].into_iter().for_each(|end| maker.frame(end, 4, 0, 0, &[]));
        maker.flush();
        maker
    }

    fn plan(&mut self, stream: u32, not_taken: bool) -> Vec<Step> {
        let large = self.rng.usize(33_000..90_000);
        let small = self.rng.usize(..200);
        let (kind, status) = match self.rng.u32(..12) {
            _ if not_taken => (Kind::NotTaken, 14),
            0 => (Kind::Unary(large, small), 0),
            1 => (Kind::Unary(small, large), 0),
            2..5 => (Kind::Unary(small, small), 0),
            5..7 => (Kind::Stream(self.rng.u32(2..5)), 0),
            7 => (Kind::NoMessage, 9),
            8 => (Kind::TrailersOnly, 5),
            9 => (Kind::ResetByServer, 14),
            10 => (Kind::Cancelled, 1),
            _ => (Kind::Open, 14),
        };
        let unary = METHODS[self.rng.usize(..METHODS.len())];
        let method = if let Kind::Stream(_) = kind { "GetContainerEvents" } else { unary };
        let method = format!("runtime.v1.RuntimeService/{method}");
        let traceparent = format!("00-{:032x}-{:016x}-01", self.rng.u128(1..), self.rng.u64(1..));
        let request =
            vec![(":path", format!("/{method}")), ("grpc-timeout", "120000m".to_owned()), ("traceparent", traceparent)];
        self.made.insert(stream, Made { kind, method, status });
        let request_bytes = if let Kind::Unary(request, _) = kind { request } else { small };
        let mut steps = vec![Step::Headers(CLIENT, 0, request)];
        steps.extend(data(CLIENT, &message(request_bytes), true));
        steps.extend(Self::answer(kind, status));
        steps
    }

    fn answer(kind: Kind, status: u8) -> Vec<Step> {
        let headers = || Step::Headers(SERVER, 0, vec![(":status", "200".to_owned())]);
        let trailers = || Step::Headers(SERVER, END_STREAM, vec![("grpc-status", status.to_string())]);
        let mut steps = vec![headers()];
        match kind {
            Kind::Unary(_, bytes) => steps.extend(data(SERVER, &message(bytes), false)),
            Kind::Stream(messages) => steps.extend((0..messages).flat_map(|_| data(SERVER, &message(50), false))),
            Kind::NoMessage => {}
            Kind::TrailersOnly => {
                let only = vec![(":status", "200".to_owned()), ("grpc-status", status.to_string())];
                return vec![Step::Headers(SERVER, END_STREAM, only)];
            }
            Kind::ResetByServer => return vec![headers(), Step::Reset(SERVER, 7)],
            Kind::Cancelled => return vec![headers(), Step::Reset(CLIENT, 8)],
            Kind::Open => return vec![headers()],
            Kind::NotTaken => return Vec::new(),
        }
        steps.push(trailers());
        steps
    }

    fn write(&mut self, stream: u32, step: Step) {
        match step {
            Step::Headers(end, flags, fields) => {
                let mut block = if end == CLIENT { vec![0x83, 0x86] } else { Vec::new() };
                for (name, value) in fields {
                    if name == ":status" {
                        block.push(0x88); // of the static table
                    } else {
                        let encoder = &mut self.encoders[usize::from(end)];
                        encoder.field(name.as_bytes(), value.as_bytes(), Representation::Incremental, &mut block);
                    }
                }
                self.frame(end, 1, flags | END_HEADERS, stream, &block);
            }
            Step::Data(end, flags, bytes) => self.frame(end, 0, flags, stream, &bytes),
            Step::Reset(end, code) => self.frame(end, 3, 0, stream, &code.to_be_bytes()),
        }
        if self.rng.u32(..4) == 0 {
            self.flush();
        }
    }

    fn go_away(&mut self, last: u32) {
        self.flush();
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        self.frame(SERVER, 7, 0, 0, &payload);
        self.flush();
    }

    fn frame(&mut self, end: u8, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let bytes = &mut self.bytes[usize::from(end)];
        bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
    }

    /// Both ends write what they have, after they have read what is there; else they read when they feel like it.
    fn flush(&mut self) {
        for end in [CLIENT, SERVER] {
            let at = usize::from(end);
            while self.read[1 - at] < self.written[1 - at] {
                self.read_by(end);
            }
            while self.written[at] < self.bytes[at].len() {
                let from = self.written[at];
                let len = GATHERED_BYTES.min(self.bytes[at].len() - from);
                self.written[at] += len;
                self.transfer(end, false, from, len);
                if self.rng.u32(..3) > 0 {
                    self.read_by(1 - end);
                }
            }
        }
    }

    fn read_by(&mut self, end: u8) {
        let (from, to) = (self.read[usize::from(1 - end)], self.written[usize::from(1 - end)]);
        let len = GATHERED_BYTES.min(to - from);
        self.read[usize::from(1 - end)] += len;
        if len > 0 {
            self.transfer(end, true, from, len);
        }
    }

    fn transfer(&mut self, end: u8, reads: bool, from: usize, len: usize) {
        self.now_ns += self.rng.u64(50_000..150_000);
        self.transfers.push(Transfer { time_ns: self.now_ns, end, reads, from, len });
    }

    fn finish(mut self) -> (Recorded, BTreeMap<u32, Made>) {
        for end in [CLIENT, SERVER] {
            while self.read[usize::from(1 - end)] < self.written[usize::from(1 - end)] {
                self.read_by(end);
            }
        }
        (Recorded { bytes: self.bytes, transfers: self.transfers, streams: Vec::new() }, self.made)
    }
}

/// A message that names nothing, behind its prefix.
fn message(bytes: usize) -> Vec<u8> {
    [&[0][..], &(bytes as u32).to_be_bytes(), &vec![0; bytes]].concat()
}

/// In as many frames as it takes.
fn data(end: u8, bytes: &[u8], ends: bool) -> Vec<Step> {
    let frames: Vec<&[u8]> = bytes.chunks(FRAME_BYTES).collect();
    let last = frames.len() - 1;
    let flags = |index: usize| if ends && index == last { END_STREAM } else { 0 };
    frames.into_iter().enumerate().map(|(index, frame)| Step::Data(end, flags(index), frame.to_vec())).collect()
}
