//! The 9-octet frame header (RFC 9113 §4.1) and what each frame type demands of it (§6).

use std::fmt;

/// Octets of a frame header.
pub const HEADER_LEN: usize = 9;

/// Frame flags (RFC 9113 §6). The same bit means different things on different types.
pub mod flag {
    /// DATA, HEADERS: the last frame of this direction of the stream.
    pub const END_STREAM: u8 = 0x01;
    /// SETTINGS, PING: an acknowledgement.
    pub const ACK: u8 = 0x01;
    /// HEADERS, PUSH_PROMISE, CONTINUATION: the header block is complete.
    pub const END_HEADERS: u8 = 0x04;
    /// DATA, HEADERS, PUSH_PROMISE: padding is present.
    pub const PADDED: u8 = 0x08;
    /// HEADERS: five octets of priority are present.
    pub const PRIORITY: u8 = 0x20;
}

/// A frame type (RFC 9113 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the RFC's")]
pub enum FrameType {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension; receivers ignore it (RFC 9113 §4.1).
    Unknown(u8),
}

/// A frame header as it stands on the wire; [`validate`](Self::validate) says whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Octets of payload that follow.
    pub length: u32,
    /// What the payload is.
    pub frame_type: FrameType,
    /// See [`flag`]; undefined bits are to be ignored.
    pub flags: u8,
    /// The reserved bit before the stream id: sent as 0, to be ignored.
    pub reserved: bool,
    /// 0 for the connection itself.
    pub stream_id: u32,
}

/// Why a frame header cannot stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Longer than the receiver allows (RFC 9113 §4.2).
    TooLong,
    /// Not a length that this type can have.
    Length,
    /// Stream 0 where a stream is needed, or a stream where the connection is meant.
    StreamId,
}

impl FrameType {
    /// The type of a type octet.
    pub fn from_octet(octet: u8) -> Self {
        match octet {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }

    /// The flags that this type defines.
    pub fn defined_flags(self) -> u8 {
        match self {
            Self::Data => flag::END_STREAM | flag::PADDED,
            Self::Headers => flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY,
            Self::Settings | Self::Ping => flag::ACK,
            Self::PushPromise => flag::END_HEADERS | flag::PADDED,
            Self::Continuation => flag::END_HEADERS,
            Self::Priority | Self::RstStream | Self::GoAway | Self::WindowUpdate | Self::Unknown(_) => 0,
        }
    }
}

impl FrameHeader {
    /// Takes the fields apart. Every nine octets are a frame header; see [`validate`](Self::validate).
    pub fn parse(octets: &[u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, frame_type, flags, s0, s1, s2, s3] = *octets;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            frame_type: FrameType::from_octet(frame_type),
            flags,
            reserved: stream >> 31 != 0,
            stream_id: stream & 0x7fff_ffff,
        }
    }

    /// Whether `flag` is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether this ends its direction of the stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.frame_type, FrameType::Data | FrameType::Headers) && self.has(flag::END_STREAM)
    }

    /// What every endpoint must refuse: RFC 9113 §4.2 and the length and stream rules of §6.1 to §6.10.
    pub fn validate(&self, max_frame_bytes: u32) -> Result<(), Invalid> {
        if self.length > max_frame_bytes {
            return Err(Invalid::TooLong);
        }
        let (length_fits, on_stream) = match self.frame_type {
            FrameType::Data | FrameType::Headers | FrameType::PushPromise | FrameType::Continuation => {
                (true, Some(true))
            }
            FrameType::Priority => (self.length == 5, Some(true)),
            FrameType::RstStream => (self.length == 4, Some(true)),
            FrameType::Settings if self.has(flag::ACK) => (self.length == 0, Some(false)),
            FrameType::Settings => (self.length.is_multiple_of(6), Some(false)),
            FrameType::Ping => (self.length == 8, Some(false)),
            FrameType::GoAway => (self.length >= 8, Some(false)),
            FrameType::WindowUpdate => (self.length == 4, None),
            FrameType::Unknown(_) => (true, None),
        };
        if !length_fits {
            return Err(Invalid::Length);
        }
        match on_stream {
            Some(on_stream) if on_stream != (self.stream_id != 0) => Err(Invalid::StreamId),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "frame is longer than allowed",
            Self::Length => "frame has a length that its type cannot have",
            Self::StreamId => "frame stands on a stream that its type cannot stand on",
        })
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_field_apart() {
        let header = FrameHeader::parse(&[0x00, 0x40, 0x00, 0x01, 0x25, 0x80, 0x00, 0x01, 0x03]);
        let expected = FrameHeader {
            length: 16384,
            frame_type: FrameType::Headers,
            flags: flag::END_STREAM | flag::END_HEADERS | flag::PRIORITY,
            reserved: true,
            stream_id: 259,
        };
        assert_eq!(header, expected);
        assert!(header.ends_stream());
    }

    #[test]
    fn lengths_and_streams_of_each_type() {
        for (octet, flags, length, stream_id, expected) in [
            (0, 0, 0, 1, Ok(())),
            (0, 0, 16384, 1, Ok(())),
            (0, 0, 16385, 1, Err(Invalid::TooLong)),
            (0, 0, 5, 0, Err(Invalid::StreamId)),
            (1, 0, 5, 0, Err(Invalid::StreamId)),
            (2, 0, 5, 1, Ok(())),
            (2, 0, 4, 1, Err(Invalid::Length)),
            (3, 0, 4, 1, Ok(())),
            (3, 0, 5, 1, Err(Invalid::Length)),
            (4, 0, 12, 0, Ok(())),
            (4, 0, 7, 0, Err(Invalid::Length)),
            (4, 1, 6, 0, Err(Invalid::Length)),
            (4, 0, 6, 1, Err(Invalid::StreamId)),
            (5, 0, 4, 0, Err(Invalid::StreamId)),
            (6, 0, 7, 0, Err(Invalid::Length)),
            (7, 0, 7, 0, Err(Invalid::Length)),
            (8, 0, 4, 0, Ok(())),
            (8, 0, 4, 9, Ok(())),
            (9, 0, 4, 0, Err(Invalid::StreamId)),
            (77, 0xff, 3, 0, Ok(())),
        ] {
            let frame_type = FrameType::from_octet(octet);
            let header = FrameHeader { length, frame_type, flags, reserved: false, stream_id };
            assert_eq!(header.validate(16384), expected, "{header:?}");
        }
    }
}
