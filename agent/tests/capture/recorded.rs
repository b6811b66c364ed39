//! The recorded connections as they went over the wire: bytes, system calls, and what an independent decoder read in them.

use std::path::PathBuf;

use serde_json::Value;
use spanlet_abi::event::{CLIENT, SERVER};

pub(crate) const CONNECTIONS: [&str; 4] = ["k134-c17-1", "k134-c17-2", "k134-c22-notrace-1", "k134-c22-notrace-2"];

/// One connection.
pub(crate) struct Recorded {
    /// What the client sent, and what the server sent.
    pub(crate) bytes: [Vec<u8>; 2],
    /// In the order of their times.
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) streams: Vec<Stream>,
}

/// A write or a read of some bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Nanoseconds since some time before the connection.
    pub(crate) time_ns: u64,
    /// The end that writes or reads.
    pub(crate) end: u8,
    pub(crate) reads: bool,
    /// In the stream of bytes between the ends.
    pub(crate) from: usize,
    pub(crate) len: usize,
}

/// A call as the independent decoder read it.
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) method: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) status: Option<u8>,
    pub(crate) headers_at: usize,
}

/// Monotonic time of the first event, nanoseconds.
const BEGIN_NS: u64 = 1_000_000_000_000;

// === impl Recorded ===

impl Recorded {
    pub(crate) fn load(name: &str) -> Self {
        let read = |suffix: &str| std::fs::read(fixture(name, suffix)).ok();
        let events = |suffix: &str| -> Option<Vec<Value>> { Some(serde_json::from_slice(&read(suffix)?).unwrap()) };
        let client = events("client-events.json").unwrap();
        let server = events("server-events.json");
        let begin = client[0]["t"].as_f64().unwrap();
        let mut transfers = transfers(&client, CLIENT, begin);
        match server {
            Some(server) => transfers.extend(self::transfers(&server, SERVER, begin)),
            None => transfers.extend(transfers.clone().iter().map(other_side)),
        }
        come_after_their_writes(&mut transfers);
        transfers.sort_by_key(|transfer| (transfer.time_ns, transfer.reads));
        let decoded = String::from_utf8(read("client-decoded.json").unwrap()).unwrap();
        Self {
            bytes: ["client-c2s.bin", "client-s2c.bin"].map(|suffix| read(suffix).unwrap()),
            transfers,
            streams: decoded.lines().map(|line| stream(&serde_json::from_str(line).unwrap())).collect(),
        }
    }

    /// The same with every write cut into pieces of so many bytes.
    pub(crate) fn cut(mut self, most: usize) -> Self {
        let pieces = |transfer: Transfer| {
            let step = if transfer.reads { transfer.len } else { most };
            (0..transfer.len).step_by(step.max(1)).enumerate().map(move |(index, at)| Transfer {
                time_ns: transfer.time_ns + index as u64,
                from: transfer.from + at,
                len: step.min(transfer.len - at),
                ..transfer
            })
        };
        self.transfers = self.transfers.into_iter().flat_map(pieces).collect();
        self.transfers.sort_by_key(|transfer| (transfer.time_ns, transfer.reads));
        self
    }

    /// Where the frames of a direction begin.
    pub(crate) fn boundaries(&self, end: u8) -> Vec<usize> {
        let bytes = &self.bytes[usize::from(end)];
        let mut at = if end == CLIENT { 24 } else { 0 };
        let mut boundaries = Vec::new();
        while at < bytes.len() {
            boundaries.push(at);
            at += 9 + u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]) as usize;
        }
        boundaries
    }
}

fn fixture(name: &str, suffix: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/cri/cri-conn-{name}-{suffix}"))
}

fn transfers(events: &[Value], end: u8, begin: f64) -> Vec<Transfer> {
    let moved = events.iter().filter_map(|event| {
        let reads = event["dir"].as_str()? == "rx";
        // A write is stamped at its entry, a read when the bytes are handed over.
        let at = event[if reads { "t_end" } else { "t" }].as_f64()?;
        Some(Transfer {
            time_ns: BEGIN_NS + ((at - begin).max(0.0) * 1e9) as u64,
            end,
            reads,
            from: event["off"].as_u64()? as usize,
            len: event["len"].as_u64()? as usize,
        })
    });
    moved.filter(|transfer| transfer.len > 0).collect()
}

/// The two sides were stamped by two recorders: some reads seem to come before the write that they read.
fn come_after_their_writes(transfers: &mut [Transfer]) {
    let writes: Vec<Transfer> = transfers.iter().copied().filter(|transfer| !transfer.reads).collect();
    for read in transfers.iter_mut().filter(|transfer| transfer.reads) {
        let last = read.from + read.len - 1;
        let holds = |write: &&Transfer| write.end != read.end && (write.from..write.from + write.len).contains(&last);
        let written_ns = writes.iter().find(holds).expect("what is read was written").time_ns;
        read.time_ns = read.time_ns.max(written_ns + 1);
    }
}

/// Of a server that was not recorded: it read what the client wrote, and wrote what the client read, a little before or after.
fn other_side(transfer: &Transfer) -> Transfer {
    const WAY_NS: u64 = 20_000;
    let time_ns = if transfer.reads { transfer.time_ns - WAY_NS } else { transfer.time_ns + WAY_NS };
    Transfer { time_ns, end: SERVER, reads: !transfer.reads, ..*transfer }
}

fn stream(line: &Value) -> Stream {
    let header = |name: &str| {
        let lists = ["req_headers", "trailers"].map(|list| line[list].as_array().cloned().unwrap_or_default());
        let pair = lists.concat().into_iter().find(|pair| pair[0] == name)?;
        Some(pair[1].as_str().unwrap().to_owned())
    };
    Stream {
        id: line["stream"].as_u64().unwrap() as u32,
        method: header(":path").unwrap().trim_start_matches('/').to_owned(),
        traceparent: header("traceparent"),
        timeout: header("grpc-timeout"),
        status: header("grpc-status").map(|code| code.parse().unwrap()),
        headers_at: line["req_headers_off"].as_u64().unwrap() as usize,
    }
}
