//! Splits one direction of a byte stream into frames, without keeping payloads.
//!
//! ```text
//!   start() ─► Preface ─24 octets─► Header ─9 octets─► Payload ─length octets─┐
//!   joined() ───────────────────────► ▲  │                                   │
//!                                     └──┼───────────────────────────────────┘
//!                        broken header   └──► Malformed        lose() from anywhere ──► Lost ─ resume_at() ─► Header
//! ```

use std::fmt;

use super::header::{FrameHeader, HEADER_LEN, Invalid};
use super::{CLIENT_PREFACE, FrameType, flag};
use crate::limits::{DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES};

/// Reads frames from chunks of any size.
#[derive(Debug)]
pub struct FrameReader {
    state: State,
    /// Octets of the stream that were taken.
    offset: u64,
    max_frame_bytes: u32,
    /// The first frame must be SETTINGS (RFC 9113 §3.4).
    settings_due: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Preface { seen: usize },
    Header { seen: usize, octets: [u8; HEADER_LEN] },
    Payload { left: u32 },
    Broken(ReadError),
}

/// What [`FrameReader::read`] found next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// The input is used up.
    NeedMore,
    /// A frame starts; its header stands at `offset` in the stream. Its payload follows in [`Step::Payload`] steps, none if
    /// its length is 0.
    Frame {
        /// The header, valid as of [`FrameHeader::validate`].
        header: FrameHeader,
        /// Of the header's first octet.
        offset: u64,
    },
    /// The next piece of the payload, at least one octet.
    Payload {
        /// Borrowed from the input.
        octets: &'a [u8],
        /// Nothing of this frame follows.
        last: bool,
    },
}

/// Why no frame can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// Not HTTP/2: the client's preface is another (RFC 9113 §3.4).
    Preface,
    /// The first frame is not SETTINGS (RFC 9113 §3.4).
    SettingsMissing,
    /// A frame header that no endpoint may send.
    Malformed(Invalid),
    /// Bytes went by unseen; needs [`FrameReader::resume_at`].
    LostTrack,
}

impl FrameReader {
    /// For what a client sends, from its first byte: the preface, then frames.
    pub fn client() -> Self {
        Self::with_state(State::Preface { seen: 0 }, 0, true)
    }

    /// For what a server sends, from its first byte.
    pub fn server() -> Self {
        Self::with_state(State::START_OF_FRAME, 0, true)
    }

    /// For a stream joined at the frame boundary `offset`.
    pub fn joined_at(offset: u64) -> Self {
        Self::with_state(State::START_OF_FRAME, offset, false)
    }

    fn with_state(state: State, offset: u64, settings_due: bool) -> Self {
        Self { state, offset, max_frame_bytes: DEFAULT_FRAME_BYTES, settings_due }
    }

    /// Sets the largest payload that the receiver announced (SETTINGS_MAX_FRAME_SIZE, RFC 9113 §6.5.2); values outside the
    /// range of the RFC become its nearest end.
    pub fn set_max_frame_bytes(&mut self, max_bytes: u32) {
        self.max_frame_bytes = max_bytes.clamp(DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES);
    }

    /// The largest payload that is accepted.
    pub fn max_frame_bytes(&self) -> u32 {
        self.max_frame_bytes
    }

    /// Octets of the stream that were taken so far: the offset of the next one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next step's octets off the front of `input`. An error stays until [`resume_at`](Self::resume_at).
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, ReadError> {
        loop {
            if let State::Broken(error) = self.state {
                return Err(error);
            }
            if input.is_empty() {
                return Ok(Step::NeedMore);
            }
            match self.state {
                State::Preface { seen } => self.read_preface(seen, input)?,
                State::Header { seen, octets } => {
                    if let Some(step) = self.read_header(seen, octets, input)? {
                        return Ok(step);
                    }
                }
                State::Payload { left } => return Ok(self.read_payload(left, input)),
                State::Broken(_) => unreachable!("returned above"),
            }
        }
    }

    /// Tells the reader that bytes went by unseen.
    pub fn lose(&mut self) {
        self.state = State::Broken(ReadError::LostTrack);
    }

    /// Goes on at a frame boundary, the next octet given being the stream's octet `offset`.
    pub fn resume_at(&mut self, offset: u64) {
        self.state = State::START_OF_FRAME;
        self.offset = offset;
        self.settings_due = false;
    }

    fn read_preface(&mut self, seen: usize, input: &mut &[u8]) -> Result<(), ReadError> {
        let expected = &CLIENT_PREFACE[seen..];
        let octets = self.take(expected.len(), input);
        if !expected.starts_with(octets) {
            return Err(self.fail(ReadError::Preface));
        }
        let seen = seen + octets.len();
        self.state = if seen == CLIENT_PREFACE.len() { State::START_OF_FRAME } else { State::Preface { seen } };
        Ok(())
    }

    fn read_header<'a>(
        &mut self,
        seen: usize,
        mut octets: [u8; HEADER_LEN],
        input: &mut &'a [u8],
    ) -> Result<Option<Step<'a>>, ReadError> {
        let taken = self.take(HEADER_LEN - seen, input);
        octets[seen..seen + taken.len()].copy_from_slice(taken);
        let seen = seen + taken.len();
        if seen < HEADER_LEN {
            self.state = State::Header { seen, octets };
            return Ok(None);
        }
        let header = FrameHeader::parse(&octets);
        if let Err(invalid) = header.validate(self.max_frame_bytes) {
            return Err(self.fail(ReadError::Malformed(invalid)));
        }
        let is_settings = header.frame_type == FrameType::Settings && !header.has(flag::ACK);
        if self.settings_due && !is_settings {
            return Err(self.fail(ReadError::SettingsMissing));
        }
        self.settings_due = false;
        self.state = State::after_payload_octets(header.length);
        Ok(Some(Step::Frame { header, offset: self.offset - HEADER_LEN as u64 }))
    }

    fn read_payload<'a>(&mut self, left: u32, input: &mut &'a [u8]) -> Step<'a> {
        let octets = self.take(left as usize, input);
        let left = left - octets.len() as u32;
        self.state = State::after_payload_octets(left);
        Step::Payload { octets, last: left == 0 }
    }

    fn take<'a>(&mut self, at_most: usize, input: &mut &'a [u8]) -> &'a [u8] {
        let (taken, rest) = input.split_at(at_most.min(input.len()));
        *input = rest;
        self.offset += taken.len() as u64;
        taken
    }

    fn fail(&mut self, error: ReadError) -> ReadError {
        self.state = State::Broken(error);
        error
    }
}

impl State {
    const START_OF_FRAME: Self = Self::Header { seen: 0, octets: [0; HEADER_LEN] };

    fn after_payload_octets(left: u32) -> Self {
        if left == 0 { Self::START_OF_FRAME } else { Self::Payload { left } }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preface => f.write_str("not HTTP/2: client preface is missing"),
            Self::SettingsMissing => f.write_str("first frame is not SETTINGS"),
            Self::Malformed(invalid) => write!(f, "malformed frame header: {invalid}"),
            Self::LostTrack => f.write_str("bytes went by unseen"),
        }
    }
}

impl std::error::Error for ReadError {}
