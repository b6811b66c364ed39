//! What happens on a connection.

use std::fmt;

use crate::blocks::BlockError;
use crate::hpack::{DecodeError, HeaderList};

/// Something that the bytes of one direction completed. Offsets count the octets of that direction from 0; `frame_offset`
/// is that of the frame's 9-octet header (for a header block its first frame's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A header block was decoded.
    Headers {
        /// The stream it belongs to.
        stream_id: u32,
        /// Of the HEADERS frame.
        frame_offset: u64,
        /// HPACK octets of the block.
        block_bytes: usize,
        /// Where it stands in the message.
        section: Section,
        /// The last of this direction of the stream.
        end_stream: bool,
        /// The fields.
        list: &'a HeaderList,
    },
    /// A header block could not be decoded; the decoder went on as a late joiner.
    HeadersLost {
        /// The stream it belongs to (for an interrupted block, that of the frame in its way).
        stream_id: u32,
        /// Of the frame that showed it.
        frame_offset: u64,
        /// That frame ended this direction of the stream.
        end_stream: bool,
        /// Why.
        reason: HeadersLost,
    },
    /// A piece of a DATA frame, without padding. A frame without data gives one empty piece.
    Data {
        /// The stream it belongs to.
        stream_id: u32,
        /// Of the DATA frame.
        frame_offset: u64,
        /// Length of the frame's payload, padding included.
        frame_bytes: u32,
        /// Octets of data on this direction of the stream before this piece, as far as it was watched.
        stream_offset: u64,
        /// The piece.
        octets: &'a [u8],
        /// Nothing follows on this direction of the stream.
        end_stream: bool,
    },
    /// RST_STREAM (RFC 9113 §6.4).
    Reset {
        /// The stream that is over, both ways.
        stream_id: u32,
        /// Of the frame.
        frame_offset: u64,
        /// RFC 9113 §7; CANCEL is 8.
        error_code: u32,
    },
    /// GOAWAY (RFC 9113 §6.8).
    GoAway {
        /// Streams above this were not taken.
        last_stream_id: u32,
        /// RFC 9113 §7.
        error_code: u32,
    },
    /// SETTINGS (RFC 9113 §6.5).
    Settings(Settings),
    /// The acknowledgement of the other side's SETTINGS.
    SettingsAck,
}

/// Which part of a message a header block is (RFC 9113 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// The first of its stream (also 1xx responses and what follows them). With `end_stream` on a response this is gRPC's
    /// "trailers only".
    Header,
    /// After headers or data of the same stream.
    Trailer,
    /// The stream began before it was watched.
    Unknown,
}

/// Why a header block could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadersLost {
    /// It could not be put together.
    Block(BlockError),
    /// It could not be decoded.
    Decode(DecodeError),
}

/// The parameters of a SETTINGS frame that matter to an observer; `None` if not in the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// SETTINGS_HEADER_TABLE_SIZE: octets of dynamic table that the other side's encoder may use.
    pub header_table_bytes: Option<u32>,
    /// SETTINGS_MAX_FRAME_SIZE: octets of payload that the other side may put into a frame.
    pub max_frame_bytes: Option<u32>,
}

impl fmt::Display for HeadersLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(error) => error.fmt(f),
            Self::Decode(error) => error.fmt(f),
        }
    }
}
