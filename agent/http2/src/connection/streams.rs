//! The streams under way in one direction.

use std::collections::BTreeMap;

use super::{Endpoint, Section};
use crate::limits::MAX_STREAMS;

/// What must be remembered of each stream, for at most [`MAX_STREAMS`].
#[derive(Debug)]
pub(super) struct Streams {
    sender: Endpoint,
    /// Watched from the first byte, so that an unknown stream is a new one.
    from_start: bool,
    open: BTreeMap<u32, Stream>,
    /// Highest stream that this direction opened; 0 before the first.
    highest_id: u32,
    evicted: u64,
}

#[derive(Debug, Default)]
struct Stream {
    began_with_headers: bool,
    data_bytes: u64,
    data_seen: bool,
}

impl Streams {
    pub(super) fn new(sender: Endpoint, from_start: bool) -> Self {
        Self { sender, from_start, open: BTreeMap::new(), highest_id: 0, evicted: 0 }
    }

    /// Notes a header block and says where it stands in its message.
    pub(super) fn headers(&mut self, stream_id: u32, end_stream: bool) -> Section {
        let section = match self.open.get(&stream_id) {
            Some(stream) if stream.data_seen || end_stream => Section::Trailer,
            Some(stream) if stream.began_with_headers => Section::Header,
            Some(_) => Section::Unknown,
            None if self.is_new(stream_id) => Section::Header,
            None => Section::Unknown,
        };
        self.highest_id = self.highest_id.max(stream_id);
        if end_stream {
            self.close(stream_id);
        } else {
            self.stream(stream_id).began_with_headers |= section == Section::Header;
        }
        section
    }

    /// Notes data and gives the offset of its first octet.
    pub(super) fn data(&mut self, stream_id: u32, len: usize, end_stream: bool) -> u64 {
        let stream = self.stream(stream_id);
        let offset = stream.data_bytes;
        stream.data_bytes += len as u64;
        stream.data_seen = true;
        if end_stream {
            self.close(stream_id);
        }
        offset
    }

    pub(super) fn close(&mut self, stream_id: u32) {
        self.open.remove(&stream_id);
    }

    /// Streams forgotten while under way because there were too many.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// After bytes went by unseen: offsets and positions are unknown.
    pub(super) fn lose_track(&mut self) {
        self.open.clear();
        self.from_start = false;
        self.highest_id = 0;
    }

    /// A client opens streams with rising ids (RFC 9113 §5.1.1), so above the highest one seen is a new one.
    fn is_new(&self, stream_id: u32) -> bool {
        self.from_start || (self.sender == Endpoint::Client && self.highest_id != 0 && stream_id > self.highest_id)
    }

    fn stream(&mut self, stream_id: u32) -> &mut Stream {
        if self.open.len() == MAX_STREAMS && !self.open.contains_key(&stream_id) {
            self.open.pop_first(); // the lowest id is the oldest
            self.evicted += 1;
        }
        self.open.entry(stream_id).or_default()
    }
}
