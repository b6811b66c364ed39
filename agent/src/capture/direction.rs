//! What one end of a connection says in its records: their order, and its header blocks decoded.
//!
//! ```text
//!            first part of a frame               last part
//! Nothing ─────────────────────────► UnderWay ───────────────► a block is decoded once its last frame is whole
//!    ▲                                  │
//!    └───────────── a gap ──────────────┘   the rest of a frame that a gap has cut is not decoded: it could read as anything
//! ```

use spanlet_abi::event::{Head, headers};
use spanlet_http2::frame::{FrameHeader, FrameType};
use spanlet_http2::{Decoder, HeaderBlocks, HeaderList};

use super::limits::MAX_HEADER_BYTES;
use super::record::Record;

/// The HPACK state of one end's headers, and the frame that is being put together.
#[derive(Debug)]
pub struct Direction {
    pub decoder: Decoder,
    blocks: HeaderBlocks,
    payload: Vec<u8>,
    /// A frame's first part is in `payload`.
    under_way: bool,
    cut: bool,
    /// Of the block's HEADERS frame, if CONTINUATION frames follow.
    first: Option<Head>,
    /// Sequence number of the latest record.
    pub sequence: u32,
}

/// A header block that is over.
#[derive(Debug)]
pub struct Block {
    /// Of its last record; flags, note and beginning are those of its HEADERS frame.
    pub head: Head,
    /// All of it was there. If not, the list has what stood before the part that is missing.
    pub sound: bool,
}

// === impl Direction ===

impl Direction {
    /// `old`: of a connection that is older than the attach.
    pub fn new(old: bool) -> Self {
        let decoder = if old { Decoder::late() } else { Decoder::new() };
        let (blocks, payload) = (HeaderBlocks::new(), Vec::new());
        Self { decoder, blocks, payload, under_way: false, cut: false, first: None, sequence: 0 }
    }

    /// Takes the number of the next record. Says whether others are missing before it: then what the table holds is unknown.
    pub fn follows(&mut self, sequence: u32) -> bool {
        let follows = sequence == self.sequence.wrapping_add(1);
        self.sequence = sequence;
        if !follows {
            self.lose();
        }
        follows
    }

    /// Records or bytes went by unseen: what the table holds is unknown from here on.
    pub fn lose(&mut self) {
        self.blocks.reset();
        self.payload.clear();
        self.under_way = false;
        self.first = None;
        self.decoder.restart_late();
    }

    /// Octets kept of a frame that is being put together.
    pub fn kept_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Takes a part of a frame; with the last one of a block, decodes it into `list`.
    pub fn headers(&mut self, record: &Record<'_>, list: &mut HeaderList) -> Option<Block> {
        let note = record.head.note;
        if note & headers::FRAME_BEGINS != 0 {
            self.payload.clear();
            self.under_way = true;
            self.cut = false;
        }
        if self.under_way {
            let room = MAX_HEADER_BYTES - self.payload.len();
            let kept = &record.data[..record.data.len().min(room)];
            self.payload.extend_from_slice(kept);
            self.cut |= kept.len() < record.head.length as usize;
        }
        if note & headers::FRAME_COMPLETE == 0 {
            return None;
        }
        *list = HeaderList::default(); // what is not decoded must not be that of the block before
        let head = self.head_of_block(&record.head)?;
        let sound = self.decode(&record.head, list)?;
        if !sound {
            self.lose();
        }
        self.first = None;
        Some(Block { head, sound })
    }

    /// `None` if the block's first frame was not seen: then nobody knows what it is.
    fn head_of_block(&mut self, head: &Head) -> Option<Head> {
        if head.note & headers::CONTINUATION == 0 {
            self.first = Some(*head);
            return Some(*head);
        }
        let first = self.first.filter(|first| first.stream == head.stream)?;
        Some(Head { begun_ns: first.begun_ns, flags: first.flags, note: first.note, ..*head })
    }

    /// Decodes the frame's block, unless it goes on in another frame.
    fn decode(&mut self, head: &Head, list: &mut HeaderList) -> Option<bool> {
        if !std::mem::take(&mut self.under_way) {
            return Some(false);
        }
        let continuation = head.note & headers::CONTINUATION != 0;
        let header = FrameHeader {
            length: self.payload.len() as u32,
            frame_type: if continuation { FrameType::Continuation } else { FrameType::Headers },
            flags: head.flags,
            reserved: false,
            stream_id: head.stream,
        };
        match self.blocks.push(&header, &self.payload) {
            Ok(None) => None,
            Ok(Some(block)) => Some(self.decoder.decode_into(&block.octets, list).is_ok() && !self.cut),
            Err(_) => Some(false),
        }
    }
}
