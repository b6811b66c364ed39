//! Finds a frame boundary in a byte stream that was joined anywhere.
//!
//! A position proves itself when a chain of [`RESYNC_CHAIN`] plausible frame headers starts there, each where the one before
//! says that its payload ends. "Plausible" is narrower than "valid": it is what gRPC peers send, since a stricter test makes
//! a shorter chain a proof.
//!
//! ```text
//!   …tail of a payload ┃hdr│payload┃hdr│payload┃hdr┃hdr│…        ┃ boundary
//!                      └─1─────────►2─────────►3───►4  proven: resume at 1
//! ```

use std::collections::BTreeMap;

use crate::frame::{FrameHeader, FrameType, HEADER_LEN, flag};
use crate::limits::{DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES, RESYNC_CHAIN, RESYNC_WINDOW_BYTES};

/// Looks for a boundary in chunks of any size, keeping at most [`RESYNC_WINDOW_BYTES`] and one default frame.
#[derive(Debug)]
pub struct Resync {
    /// What may still turn out to stand after the boundary.
    window: Vec<u8>,
    /// Stream offset of the window's first octet.
    window_offset: u64,
    /// Stream offset of the next position to test.
    next_offset: u64,
    /// By the offset where the next header must stand.
    chains: BTreeMap<u64, Chain>,
    max_frame_bytes: u32,
    dropped_bytes: u64,
}

/// A boundary that proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Its offset in the stream.
    pub offset: u64,
    /// The octets from there to the end of what was pushed.
    pub octets: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    start: u64,
    links: u32,
    /// The stream whose header block goes on, so that CONTINUATION must come next (RFC 9113 §6.10).
    continues: Option<u32>,
}

/// Finds the first boundary in `octets`: its index. `None` if nothing in there proves itself.
pub fn find(octets: &[u8], max_frame_bytes: u32) -> Option<usize> {
    Resync::new(0, max_frame_bytes).push(octets).map(|boundary| boundary.offset as usize)
}

/// Whether a gRPC peer may have sent this header: valid, of a known type, reserved bit and undefined flags 0, nothing that
/// belongs to server push, no DATA frame that says nothing.
pub fn is_plausible(header: &FrameHeader, max_frame_bytes: u32) -> bool {
    let says_nothing = match header.frame_type {
        FrameType::Data => header.length == 0 && !header.has(flag::END_STREAM),
        FrameType::Headers => header.length == 0,
        _ => false,
    };
    let of_push =
        header.frame_type == FrameType::PushPromise || (header.stream_id != 0 && header.stream_id.is_multiple_of(2));
    header.validate(max_frame_bytes).is_ok()
        && !matches!(header.frame_type, FrameType::Unknown(_))
        && !header.reserved
        && header.flags & !header.frame_type.defined_flags() == 0
        && !says_nothing
        && !of_push
}

impl Resync {
    /// Starts at stream offset `offset`. `max_frame_bytes` is what the receiver announced (16,384 if unknown).
    pub fn new(offset: u64, max_frame_bytes: u32) -> Self {
        Self {
            window: Vec::new(),
            window_offset: offset,
            next_offset: offset,
            chains: BTreeMap::new(),
            max_frame_bytes: max_frame_bytes.clamp(DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES),
            dropped_bytes: 0,
        }
    }

    /// Takes the next octets of the stream. After a boundary was found the search starts anew behind what was pushed.
    pub fn push(&mut self, octets: &[u8]) -> Option<Boundary> {
        let mut rest = octets;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(DEFAULT_FRAME_BYTES as usize));
            rest = after;
            self.window.extend_from_slice(chunk);
            if let Some(offset) = self.scan() {
                return Some(self.take_boundary(offset, rest));
            }
            self.trim();
        }
        None
    }

    /// Octets that were passed over for good because the window was full.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Stream offset behind the last octet that was pushed.
    pub fn end_offset(&self) -> u64 {
        self.window_offset + self.window.len() as u64
    }

    /// Tests every position that has a whole header by now; gives the start of a chain that is long enough.
    fn scan(&mut self) -> Option<u64> {
        loop {
            let at = (self.next_offset - self.window_offset) as usize;
            let octets = self.window.get(at..)?.first_chunk::<HEADER_LEN>()?;
            let header = FrameHeader::parse(octets);
            let offset = self.next_offset;
            self.next_offset += 1;
            let arriving = self.chains.remove(&offset);
            if !is_plausible(&header, self.max_frame_bytes) {
                continue;
            }
            let chain = Chain::extended(arriving, offset, &header);
            if chain.links == RESYNC_CHAIN {
                return Some(chain.start);
            }
            let next_header = offset + (HEADER_LEN as u64) + u64::from(header.length);
            let other = self.chains.entry(next_header).or_insert(chain);
            if chain.links > other.links {
                *other = chain;
            }
        }
    }

    fn take_boundary(&mut self, offset: u64, rest: &[u8]) -> Boundary {
        let mut octets = std::mem::take(&mut self.window).split_off((offset - self.window_offset) as usize);
        octets.extend_from_slice(rest);
        *self =
            Self { dropped_bytes: self.dropped_bytes, ..Self::new(offset + octets.len() as u64, self.max_frame_bytes) };
        Boundary { offset, octets }
    }

    /// A chain of default frames proves itself within the window, so one that starts in the older half is not one.
    fn trim(&mut self) {
        if self.window.len() <= RESYNC_WINDOW_BYTES {
            return;
        }
        let dropped = self.window.len() - RESYNC_WINDOW_BYTES / 2;
        self.window.drain(..dropped);
        self.window_offset += dropped as u64;
        self.dropped_bytes += dropped as u64;
        let window_offset = self.window_offset;
        self.chains.retain(|_, chain| chain.start >= window_offset);
    }
}

impl Chain {
    /// The chain that arrived at `offset` with one more link, or a new one if none did or `header` cannot follow it.
    fn extended(arriving: Option<Self>, offset: u64, header: &FrameHeader) -> Self {
        let continuation = header.frame_type == FrameType::Continuation;
        let follows = |chain: &Self| match chain.continues {
            Some(stream_id) => continuation && stream_id == header.stream_id,
            None => !continuation,
        };
        let (start, links) = arriving.filter(follows).map_or((offset, 1), |chain| (chain.start, chain.links + 1));
        let block_goes_on = continuation || header.frame_type == FrameType::Headers;
        let continues = (block_goes_on && !header.has(flag::END_HEADERS)).then_some(header.stream_id);
        Self { start, links, continues }
    }
}
