//! One direction of a connection.
//!
//! ```text
//!   new() ───────────────► Reading ◄── boundary found ── Resync ◄──── late(), lose_track() from any state
//!                             └── broken framing ─► Failed (every feed says so)
//! ```

use std::fmt;

use super::Endpoint;
use super::control::{AnnouncedTable, be_u32, kept_bytes};
use super::data::DataFrame;
use super::event::{Event, HeadersLost, Settings};
use super::streams::Streams;
use crate::blocks::{self, HeaderBlock, HeaderBlocks};
use crate::frame::{FrameHeader, FrameReader, FrameType, PaddingError, ReadError, Step, flag};
use crate::hpack::{self, Decoder, HeaderList};
use crate::limits::{DEFAULT_FRAME_BYTES, DEFAULT_TABLE_BYTES, MAX_SETTINGS};
use crate::resync::Resync;

/// Reads what one end sends.
#[derive(Debug)]
pub struct Direction {
    frames: FrameReader,
    /// Of the octet that is fed next; what is fed after a failure counts, too.
    offset: u64,
    /// Looking for a boundary.
    resync: Option<Resync>,
    failed: Option<DirectionError>,
    frame: Option<Frame>,
    /// The part of the frame under way that is kept until it is whole; see [`kept_bytes`].
    payload: Vec<u8>,
    blocks: HeaderBlocks,
    /// Of the block under way, or the last one.
    block_offset: u64,
    decoder: Decoder,
    list: HeaderList,
    streams: Streams,
    announced: AnnouncedTable,
    settings_refused: u64,
    lost_track: u64,
    resync_dropped_bytes: u64,
}

/// The frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    header: FrameHeader,
    offset: u64,
    data: Option<DataFrame>,
}

/// Why nothing can be read in this direction until [`Direction::lose_track`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectionError {
    /// The framing is broken.
    Read(ReadError),
    /// A DATA frame's padding does not fit it.
    Padding(PaddingError),
}

/// What one direction met; every limit that was reached shows here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Putting blocks together.
    pub blocks: blocks::Counters,
    /// Decoding them.
    pub hpack: hpack::Counters,
    /// Streams forgotten while under way ([`MAX_STREAMS`](crate::limits::MAX_STREAMS)).
    pub streams_evicted: u64,
    /// SETTINGS frames with more than [`MAX_SETTINGS`] parameters.
    pub settings_refused: u64,
    /// Times that [`Direction::lose_track`] was called.
    pub lost_track: u64,
    /// Octets passed over without a boundary among them
    /// ([`RESYNC_WINDOW_BYTES`](crate::limits::RESYNC_WINDOW_BYTES)).
    pub resync_dropped_bytes: u64,
}

impl Direction {
    /// For a connection watched from its first byte.
    pub fn new(sender: Endpoint) -> Self {
        let frames = match sender {
            Endpoint::Client => FrameReader::client(),
            Endpoint::Server => FrameReader::server(),
        };
        let mut decoder = Decoder::new();
        decoder.set_size_limit_bytes(DEFAULT_TABLE_BYTES);
        Self::with_parts(frames, None, decoder, Streams::new(sender, true))
    }

    /// For a connection joined anywhere: looks for a frame boundary first. Offsets count from what is fed first.
    pub fn late(sender: Endpoint) -> Self {
        let resync = Resync::new(0, DEFAULT_FRAME_BYTES);
        Self::with_parts(FrameReader::joined_at(0), Some(resync), Decoder::late(), Streams::new(sender, false))
    }

    /// For a connection joined at a frame boundary, at octet `offset` of this direction.
    pub fn joined_at(sender: Endpoint, offset: u64) -> Self {
        Self::with_parts(FrameReader::joined_at(offset), None, Decoder::late(), Streams::new(sender, false))
    }

    fn with_parts(frames: FrameReader, resync: Option<Resync>, decoder: Decoder, streams: Streams) -> Self {
        Self {
            offset: frames.offset(),
            frames,
            resync,
            failed: None,
            frame: None,
            payload: Vec::new(),
            blocks: HeaderBlocks::new(),
            block_offset: 0,
            decoder,
            list: HeaderList::default(),
            streams,
            announced: AnnouncedTable::default(),
            settings_refused: 0,
            lost_track: 0,
            resync_dropped_bytes: 0,
        }
    }

    /// Takes the next bytes; `on_event` is called for everything they complete. An error stays.
    pub fn feed(&mut self, octets: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), DirectionError> {
        self.offset = self.offset.saturating_add(octets.len() as u64);
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = match &mut self.resync {
            None => self.read(octets, &mut on_event),
            Some(resync) => match resync.push(octets) {
                None => Ok(()),
                Some(boundary) => {
                    self.resync_dropped_bytes += resync.dropped_bytes();
                    self.resync = None;
                    self.frames.resume_at(boundary.offset);
                    self.read(&boundary.octets, &mut on_event)
                }
            },
        };
        result.inspect_err(|error| self.failed = Some(*error))
    }

    /// Tells that `missing` bytes went by unseen after what was fed, or, with 0, that what was fed last is not to be built
    /// upon: the next frame boundary is looked for, and the table is unknown.
    pub fn lose_track(&mut self, missing: u64) {
        self.resync_dropped_bytes += self.resync.as_ref().map_or(0, Resync::dropped_bytes);
        self.offset = self.offset.saturating_add(missing);
        self.resync = Some(Resync::new(self.offset, self.frames.max_frame_bytes()));
        self.frames.lose();
        self.failed = None;
        self.frame = None;
        self.payload.clear();
        self.blocks.reset();
        self.decoder.restart_late();
        self.streams.lose_track();
        self.lost_track += 1;
    }

    /// Whether a frame boundary is still being looked for.
    pub fn is_resynchronising(&self) -> bool {
        self.resync.is_some()
    }

    /// Takes note of what the other end sent.
    pub fn peer_sent(&mut self, event: &Event<'_>) {
        match event {
            Event::Settings(settings) => {
                if let Some(max_bytes) = settings.max_frame_bytes {
                    self.frames.set_max_frame_bytes(max_bytes.max(self.frames.max_frame_bytes()));
                }
                self.announced.announce(settings.header_table_bytes);
                if let Some(table_bytes) = settings.header_table_bytes {
                    // Until it is acknowledged both the old and the new size may be in use.
                    self.decoder.set_size_limit_bytes(self.decoder.size_limit_bytes().max(table_bytes as usize));
                }
            }
            Event::Reset { stream_id, .. } => self.streams.close(*stream_id),
            _ => {}
        }
    }

    /// The decoder, to ask how exact it is.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The decoder, to teach it.
    pub fn decoder_mut(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// What was met so far.
    pub fn counters(&self) -> Counters {
        Counters {
            blocks: self.blocks.counters(),
            hpack: self.decoder.counters(),
            streams_evicted: self.streams.evicted(),
            settings_refused: self.settings_refused,
            lost_track: self.lost_track,
            resync_dropped_bytes: self.resync_dropped_bytes + self.resync.as_ref().map_or(0, Resync::dropped_bytes),
        }
    }

    fn read(&mut self, octets: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), DirectionError> {
        let mut input = octets;
        loop {
            match self.frames.read(&mut input).map_err(DirectionError::Read)? {
                Step::NeedMore => return Ok(()),
                Step::Frame { header, offset } => {
                    let data = (header.frame_type == FrameType::Data).then(|| DataFrame::new(&header));
                    let frame = Frame { header, offset, data };
                    if header.length == 0 {
                        self.take_payload(frame, &[], true, on_event)?;
                    } else {
                        self.frame = Some(frame);
                    }
                }
                Step::Payload { octets, last } => {
                    let frame = self.frame.take().expect("the reader gives a payload only after its header");
                    self.take_payload(frame, octets, last, on_event)?;
                }
            }
        }
    }

    /// The next piece of a frame's payload.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        octets: &[u8],
        last: bool,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), DirectionError> {
        if let Some(data) = &mut frame.data {
            let piece = data.take(octets).map_err(DirectionError::Padding)?;
            self.take_data(&frame, piece, on_event);
        } else if last && self.payload.is_empty() {
            self.take_frame(&frame, octets, on_event);
        } else {
            let room = kept_bytes(frame.header.frame_type) - self.payload.len();
            self.payload.extend_from_slice(&octets[..octets.len().min(room)]);
            if last {
                let mut payload = std::mem::take(&mut self.payload);
                self.take_frame(&frame, &payload, on_event);
                payload.clear();
                self.payload = payload;
            }
        }
        if !last {
            self.frame = Some(frame);
        }
        Ok(())
    }

    fn take_data(&mut self, frame: &Frame, piece: Option<(&[u8], bool)>, on_event: &mut impl FnMut(Event<'_>)) {
        // DATA inside a header block: the block is lost, the data is not.
        if let Err(error) = self.blocks.push(&frame.header, &[]) {
            self.lose_headers(frame.header.stream_id, false, frame.offset, HeadersLost::Block(error), on_event);
        }
        let Some((octets, ends_frame)) = piece else { return };
        let stream_id = frame.header.stream_id;
        let end_stream = ends_frame && frame.header.ends_stream();
        let stream_offset = self.streams.data(stream_id, octets.len(), end_stream);
        let (frame_offset, frame_bytes) = (frame.offset, frame.header.length);
        on_event(Event::Data { stream_id, frame_offset, frame_bytes, stream_offset, octets, end_stream });
    }

    /// A whole frame other than DATA; `payload` may be cut at [`kept_bytes`].
    fn take_frame(&mut self, frame: &Frame, payload: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let Frame { header, offset: frame_offset, .. } = *frame;
        self.take_header_frame(&header, frame_offset, payload, on_event);
        match header.frame_type {
            FrameType::RstStream => {
                let error_code = be_u32(payload, 0);
                self.streams.close(header.stream_id);
                on_event(Event::Reset { stream_id: header.stream_id, frame_offset, error_code });
            }
            FrameType::GoAway => {
                let (last_stream_id, error_code) = (be_u32(payload, 0) & 0x7fff_ffff, be_u32(payload, 4));
                on_event(Event::GoAway { last_stream_id, error_code });
            }
            FrameType::Settings if header.has(flag::ACK) => {
                if let Some(table_bytes) = self.announced.acknowledge() {
                    self.decoder.set_size_limit_bytes(table_bytes);
                }
                on_event(Event::SettingsAck);
            }
            FrameType::Settings => {
                self.settings_refused += u64::from(header.length as usize > MAX_SETTINGS * Settings::PARAMETER_LEN);
                on_event(Event::Settings(Settings::parse(payload)));
            }
            _ => {}
        }
    }

    /// Gives every frame to the block under way, if only to learn that it is interrupted.
    fn take_header_frame(
        &mut self,
        header: &FrameHeader,
        frame_offset: u64,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        let starts_block = matches!(header.frame_type, FrameType::Headers | FrameType::PushPromise);
        if starts_block {
            self.block_offset = frame_offset;
        }
        let too_large = header.length as usize > kept_bytes(FrameType::Headers);
        let block = if too_large && (starts_block || header.frame_type == FrameType::Continuation) {
            self.blocks.refuse(header).map(|()| None)
        } else {
            self.blocks.push(header, payload)
        };
        match block {
            Ok(None) => {}
            Ok(Some(block)) => self.take_block(&block, on_event),
            Err(error) => {
                let end_stream = header.frame_type == FrameType::Headers && header.ends_stream();
                self.lose_headers(header.stream_id, end_stream, frame_offset, HeadersLost::Block(error), on_event);
            }
        }
    }

    fn take_block(&mut self, block: &HeaderBlock<'_>, on_event: &mut impl FnMut(Event<'_>)) {
        let HeaderBlock { stream_id, end_stream, promise, .. } = *block;
        let frame_offset = self.block_offset;
        match self.decoder.decode_into(&block.octets, &mut self.list) {
            Err(error) => {
                self.lose_headers(stream_id, end_stream, frame_offset, HeadersLost::Decode(error), on_event);
            }
            Ok(()) if promise => {}
            Ok(()) => {
                let section = self.streams.headers(stream_id, end_stream);
                let block_bytes = block.octets.len();
                on_event(Event::Headers {
                    stream_id,
                    frame_offset,
                    block_bytes,
                    section,
                    end_stream,
                    list: &self.list,
                });
            }
        }
    }

    fn lose_headers(
        &mut self,
        stream_id: u32,
        end_stream: bool,
        frame_offset: u64,
        reason: HeadersLost,
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        self.decoder.restart_late();
        if end_stream {
            self.streams.close(stream_id);
        }
        on_event(Event::HeadersLost { stream_id, frame_offset, end_stream, reason });
    }
}

impl fmt::Display for DirectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Padding(error) => write!(f, "DATA frame: {error}"),
        }
    }
}

impl std::error::Error for DirectionError {}
