//! What the kernel programs say of a recorded connection: a model of `ebpf/programs`, written for reading. It walks the same
//! frames, copies the same parts (of a CRI socket only) and counts its records in the same way.

use std::collections::HashMap;

use spanlet::capture::record::head_bytes;
use spanlet_abi::event::{CLIENT, HEAD_BYTES, Head, Kind, SERVER, field, headers, opened, read};
use spanlet_abi::limits::{HEADER_BLOCK_BYTES, PROOF_FRAMES};

use crate::message::Message;
use crate::recorded::{Recorded, Transfer};

pub(crate) const CONNECTION: u64 = 77;
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const SOCKET_KIND_CRI: u32 = 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// A record as it came into the ring.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) kind: Kind,
    pub(crate) end: u8,
    pub(crate) stream: u32,
    pub(crate) time_ns: u64,
    pub(crate) bytes: Vec<u8>,
}

/// All records of a connection that was watched from its start to its end.
pub(crate) fn records(recorded: &Recorded) -> Vec<Told> {
    let mut programs = Programs::default();
    programs.ends[0].skip = PREFACE_BYTES;
    programs.ends.iter_mut().for_each(|end| (end.proven, end.aligned) = (true, true));
    programs.open(recorded.transfers[0].time_ns, 0);
    programs.run(recorded, recorded.transfers.iter().copied());
    programs.close(recorded);
    programs.told
}

/// The records from a boundary between two frames of an end on: the programs were attached just before the frame behind it was
/// written.
pub(crate) fn records_from(recorded: &Recorded, end: u8, boundary: usize) -> Vec<Told> {
    let is_it = |transfer: &Transfer| transfer.end == end && !transfer.reads && transfer.from + transfer.len > boundary;
    let first = recorded.transfers.iter().position(is_it).expect("every byte was written");
    let mut programs = Programs::default();
    for transfer in &recorded.transfers[..first] {
        programs.moved(transfer);
    }
    let rest = recorded.transfers[first..].iter().enumerate().map(|(index, transfer)| {
        let before = if index == 0 { boundary.saturating_sub(transfer.from) } else { 0 };
        Transfer { from: transfer.from + before, len: transfer.len - before, ..*transfer }
    });
    programs.open(recorded.transfers[first].time_ns, opened::OLD);
    programs.run(recorded, rest);
    programs.close(recorded);
    programs.told
}

#[derive(Default)]
struct Programs {
    ends: [End; 2],
    told: Vec<Told>,
}

/// One end: what it writes is walked, what it reads is counted.
#[derive(Default)]
struct End {
    sequence: u32,
    read_sequence: u32,
    written: u64,
    read: u64,
    aligned: bool,
    /// `written` behind the last two messages that ended; what of `read` was told last.
    points: [u64; 2],
    read_told: u64,
    /// The record that is still to be written when this write goes on, and its head.
    pending: Option<(usize, Head)>,
    /// Bytes that went by since the connection's start, seen or not.
    truly_written: usize,
    truly_read: usize,
    /// Frame boundaries are known.
    proven: bool,
    skip: usize,
    header: Vec<u8>,
    frame: Frame,
    messages: HashMap<u32, Message>,
}

#[derive(Default, Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
    left: usize,
    begun_ns: u64,
    copied: usize,
    /// Of RST_STREAM and GOAWAY: what is there of the codes.
    codes: [u8; 8],
    have: usize,
}

// === impl Programs ===

impl Programs {
    fn open(&mut self, time_ns: u64, note: u32) {
        let path = b"/run/containerd/containerd.sock";
        let head = Head { time_ns, field: SOCKET_KIND_CRI, note, ..self.next(CLIENT) };
        self.tell(Kind::Opened, head, path, path.len());
    }

    fn run(&mut self, recorded: &Recorded, transfers: impl Iterator<Item = Transfer>) {
        for transfer in transfers {
            if transfer.reads {
                self.moved(&transfer);
                self.reads(&transfer);
            } else {
                let bytes = &recorded.bytes[usize::from(transfer.end)][transfer.from..][..transfer.len];
                self.moved(&transfer);
                self.writes(transfer.end, bytes, transfer.time_ns);
            }
        }
    }

    fn moved(&mut self, transfer: &Transfer) {
        let end = &mut self.ends[usize::from(transfer.end)];
        let count = if transfer.reads { &mut end.truly_read } else { &mut end.truly_written };
        *count = transfer.from + transfer.len;
    }

    fn close(&mut self, recorded: &Recorded) {
        let time_ns = recorded.transfers.last().unwrap().time_ns + 1_000;
        for end in [CLIENT, SERVER] {
            let note = self.ends[usize::from(end)].sequence;
            self.tell_read(Kind::Closed, end, time_ns, note);
        }
    }

    fn reads(&mut self, transfer: &Transfer) {
        let writer = &self.ends[usize::from(1 - transfer.end)];
        let (written, truly_written, [before, point]) = (writer.written, writer.truly_written, writer.points);
        let end = &mut self.ends[usize::from(transfer.end)];
        end.read += transfer.len as u64;
        if end.truly_read == truly_written && !(end.aligned && end.read == written) {
            (end.read, end.aligned, end.read_told) = (written, true, 0);
        }
        let last = if point > end.read { before } else { point };
        if !end.aligned {
            end.read_sequence += 1;
        } else if written < end.read || last > end.read_told {
            end.read_told = end.read;
            self.tell_read(Kind::Read, transfer.end, transfer.time_ns, read::ALIGNED);
        }
    }

    fn tell_read(&mut self, kind: Kind, end: u8, time_ns: u64, note: u32) {
        let state = &mut self.ends[usize::from(end)];
        state.read_sequence += 1;
        let offset = if kind == Kind::Read { state.read } else { 0 };
        let head = Head {
            sequence: state.read_sequence,
            end,
            time_ns,
            offset,
            note,
            connection: CONNECTION,
            ..Head::default()
        };
        self.tell(kind, head, &[], 0);
    }

    fn writes(&mut self, end: u8, mut bytes: &[u8], time_ns: u64) {
        let state = &mut self.ends[usize::from(end)];
        state.pending = None;
        if !state.proven && !is_proven(bytes) {
            state.written += bytes.len() as u64;
            return;
        }
        state.proven = true;
        while !bytes.is_empty() {
            let state = &mut self.ends[usize::from(end)];
            if state.skip > 0 {
                let skipped = state.skip.min(bytes.len());
                state.skip -= skipped;
                bytes = state.take(bytes, skipped).1;
            } else if state.frame.left == 0 {
                if state.frame_header(&mut bytes, time_ns) && state.frame.length == 0 {
                    self.payload(end, &[], time_ns);
                }
            } else {
                let (part, rest) = bytes.split_at(state.frame.left.min(bytes.len()));
                self.payload(end, part, time_ns);
                bytes = rest;
            }
        }
    }

    /// A part of a frame's payload; of an empty one, nothing.
    fn payload(&mut self, end: u8, part: &[u8], time_ns: u64) {
        let state = &mut self.ends[usize::from(end)];
        let begins = state.frame.left == state.frame.length;
        state.frame.left -= part.len();
        let Frame { kind, flags, stream, left, .. } = state.frame;
        if kind != DATA {
            state.written += part.len() as u64;
        }
        match kind {
            HEADERS | CONTINUATION | SETTINGS => self.fragment(end, part, begins, time_ns),
            DATA => {
                self.data(end, part, time_ns);
                if left == 0 && flags & END_STREAM != 0 {
                    self.data_ends(end, stream, time_ns);
                }
            }
            RST_STREAM | GOAWAY => self.code(end, part, time_ns),
            _ => {}
        }
    }

    fn data_ends(&mut self, end: u8, stream: u32, time_ns: u64) {
        if !self.ends_with_pending(end, stream) {
            let head = Head { time_ns, ..self.next(end) };
            self.tell(Kind::DataEnd, head, &[], 0);
        }
        let state = &mut self.ends[usize::from(end)];
        state.reaches_point();
        state.messages.remove(&stream);
    }

    /// Whether the record before tells the end of the client's message, too.
    fn ends_with_pending(&mut self, end: u8, stream: u32) -> bool {
        let state = &self.ends[usize::from(end)];
        let Some((index, head)) = state.pending.filter(|(_, head)| end == CLIENT && head.stream == stream) else {
            return false;
        };
        let (told, complete) = (&mut self.told[index], headers::FRAME_COMPLETE | headers::CONTINUATION);
        let behind = match told.kind {
            Kind::Field if head.note & field::COMPLETE != 0 => head.field,
            Kind::Headers if head.note & complete == headers::FRAME_COMPLETE => (state.written - head.offset) as u32,
            _ => return false,
        };
        let head = Head { note: head.note | field::ENDS, offset: state.written, field: behind, ..head };
        told.bytes[..HEAD_BYTES].copy_from_slice(&head_bytes(&head));
        true
    }

    fn fragment(&mut self, end: u8, part: &[u8], begins: bool, time_ns: u64) {
        let state = &mut self.ends[usize::from(end)];
        let Frame { kind, flags, stream, left, .. } = state.frame;
        let captured = part.len().min(HEADER_BLOCK_BYTES - state.frame.copied);
        state.frame.copied += captured;
        if kind == SETTINGS && flags & ACK != 0 {
            return;
        }
        let mut note = if begins { headers::FRAME_BEGINS } else { 0 };
        note |= if kind == CONTINUATION { headers::CONTINUATION } else { 0 };
        if left == 0 {
            note |= headers::FRAME_COMPLETE;
            if kind == HEADERS && flags & END_STREAM != 0 {
                state.reaches_point();
                let message = state.messages.remove(&stream);
                note |= if message.is_some_and(|message| message.bytes.len() >= 5) { headers::AFTER_DATA } else { 0 };
            }
        }
        let head = Head { time_ns, note, ..self.next(end) };
        let kind = if kind == SETTINGS { Kind::Settings } else { Kind::Headers };
        self.tell(kind, head, &part[..captured], part.len());
    }

    fn code(&mut self, end: u8, part: &[u8], time_ns: u64) {
        let frame = &mut self.ends[usize::from(end)].frame;
        let need = if frame.kind == GOAWAY { 8 } else { 4 };
        let before = frame.have;
        for byte in part {
            if frame.have < need {
                frame.codes[frame.have] = *byte;
                frame.have += 1;
            }
        }
        if before == need || frame.have < need {
            return;
        }
        let word = |at: usize| u32::from_be_bytes(frame.codes[at..at + 4].try_into().unwrap());
        let (first, second, goes_away, stream) = (word(0), word(4), frame.kind == GOAWAY, frame.stream);
        let head = Head { time_ns, ..self.next(end) };
        if goes_away {
            self.tell(Kind::GoAway, Head { stream: first & 0x7fff_ffff, note: second, ..head }, &[], 0);
        } else {
            self.ends[usize::from(end)].messages.remove(&stream);
            self.tell(Kind::Reset, Head { note: first, ..head }, &[], 0);
        }
    }

    fn data(&mut self, end: u8, part: &[u8], time_ns: u64) {
        let state = &mut self.ends[usize::from(end)];
        let Some(message) = state.messages.get_mut(&state.frame.stream) else {
            state.written += part.len() as u64;
            return;
        };
        let of_first = part.len().min(message.missing(part));
        message.bytes.extend_from_slice(&part[..of_first]);
        state.written += of_first as u64;
        let field = if end == CLIENT { message.field() } else { message.id() };
        let mut set_out = None;
        if let Some((start, length, note)) = field {
            let have = message.bytes.len().min(start + length);
            let from = message.told.max(start);
            if have > from {
                message.told = have;
                let begins = if from == start { field::BEGINS } else { 0 };
                let complete = if have == start + length { field::COMPLETE } else { 0 };
                set_out = Some((note | begins | complete, message.bytes[from..have].to_vec()));
            }
        }
        let mut ends = false;
        if message.is_whole() && message.end.is_none() {
            message.end = Some((state.written, time_ns));
            ends = true;
        }
        let second = message.end.filter(|_| of_first < part.len() && !message.streaming);
        message.streaming |= second.is_some();
        if ends {
            state.reaches_point();
        }
        state.written += (part.len() - of_first) as u64;
        if let Some((note, content)) = set_out {
            let head = Head { time_ns, note, field: 1, ..self.next(end) };
            self.tell(Kind::Field, head, &content, content.len());
        }
        if let Some((offset, time_ns)) = second {
            let head = Head { time_ns, offset, ..self.next(end) };
            self.tell(Kind::Streaming, head, &[], 0);
        }
    }

    /// The head of an end's next record.
    fn next(&mut self, end: u8) -> Head {
        let state = &mut self.ends[usize::from(end)];
        state.sequence += 1;
        Head {
            end,
            flags: state.frame.flags,
            sequence: state.sequence,
            connection: CONNECTION,
            begun_ns: state.frame.begun_ns,
            offset: state.written,
            stream: state.frame.stream,
            ..Head::default()
        }
    }

    fn tell(&mut self, kind: Kind, head: Head, data: &[u8], length: usize) {
        let head = Head {
            kind: kind as u16,
            length: length as u32,
            captured: data.len() as u32,
            process: if head.end == CLIENT { 100 } else { 200 },
            ..head
        };
        let bytes = [&head_bytes(&head), data].concat();
        self.ends[usize::from(head.end)].pending = Some((self.told.len(), head));
        self.told.push(Told { kind, end: head.end, stream: head.stream, time_ns: head.time_ns, bytes });
    }
}

// === impl End ===

impl End {
    fn reaches_point(&mut self) {
        if self.points[1] != self.written {
            self.points = [self.points[1], self.written];
        }
    }

    fn take<'a>(&mut self, bytes: &'a [u8], count: usize) -> (&'a [u8], &'a [u8]) {
        self.written += count as u64;
        bytes.split_at(count)
    }

    /// Reads a frame's header, or the part of it that is there; says whether it is whole.
    fn frame_header(&mut self, bytes: &mut &[u8], time_ns: u64) -> bool {
        if self.header.is_empty() {
            self.frame.begun_ns = time_ns;
        }
        let wanted = (FRAME_HEADER_BYTES - self.header.len()).min(bytes.len());
        let (taken, rest) = self.take(bytes, wanted);
        *bytes = rest;
        self.header.extend_from_slice(taken);
        if self.header.len() < FRAME_HEADER_BYTES {
            return false;
        }
        let h = std::mem::take(&mut self.header);
        let length = u32::from_be_bytes([0, h[0], h[1], h[2]]) as usize;
        let copied = if h[3] == CONTINUATION { self.frame.copied } else { 0 };
        let (kind, flags, begun_ns) = (h[3], h[4], self.frame.begun_ns);
        let stream = u32::from_be_bytes([h[5] & 0x7f, h[6], h[7], h[8]]);
        self.frame = Frame { kind, flags, stream, length, left: length, begun_ns, copied, ..Frame::default() };
        if kind == HEADERS && flags & END_STREAM == 0 {
            self.messages.insert(stream, Message::default());
        }
        true
    }
}

/// Whether a write begins at a frame boundary: frames follow one another to its end, or enough of them do.
fn is_proven(bytes: &[u8]) -> bool {
    let mut at = 0;
    for _ in 0..PROOF_FRAMES {
        let Some(h) = bytes.get(at..at + FRAME_HEADER_BYTES) else { return false };
        let stream = u32::from_be_bytes([h[5], h[6], h[7], h[8]]);
        let fits = match h[3] {
            0 | 1 | 2 | 3 | 5 | 9 => stream != 0,
            4 | 6 | 7 => stream == 0,
            kind => kind <= 0x10,
        };
        if !fits || h[5] & 0x80 != 0 {
            return false;
        }
        at += FRAME_HEADER_BYTES + u32::from_be_bytes([0, h[0], h[1], h[2]]) as usize;
        if at == bytes.len() {
            return true;
        }
    }
    true
}
