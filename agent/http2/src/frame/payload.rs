//! Padding and priority inside payloads (RFC 9113 §6.1, §6.2, §6.6).

use std::fmt;

use super::header::{FrameHeader, FrameType, flag};

const PRIORITY_LEN: usize = 5;
const PROMISED_STREAM_LEN: usize = 4;

/// Padding (or the fields before it) does not fit the payload: a connection error (RFC 9113 §6.1, §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaddingError;

/// The part of a HEADERS, PUSH_PROMISE or CONTINUATION payload that belongs to the header block: without padding, priority
/// and promised stream. `payload` is all of it.
pub fn header_fragment<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<&'a [u8], PaddingError> {
    let before = match header.frame_type {
        FrameType::Headers if header.has(flag::PRIORITY) => PRIORITY_LEN,
        FrameType::PushPromise => PROMISED_STREAM_LEN,
        FrameType::Continuation => return Ok(payload),
        _ => 0,
    };
    let (padding, rest) = if header.has(flag::PADDED) {
        payload.split_first().map(|(&padding, rest)| (usize::from(padding), rest)).ok_or(PaddingError)?
    } else {
        (0, payload)
    };
    let end = rest.len().checked_sub(padding).ok_or(PaddingError)?;
    rest.get(before..end).ok_or(PaddingError)
}

/// Octets of padding at the end of a DATA payload of `length` octets, of which `pad_length` is the first (PADDED is set).
pub fn data_padding(length: u32, pad_length: u8) -> Result<u32, PaddingError> {
    if u32::from(pad_length) < length { Ok(u32::from(pad_length)) } else { Err(PaddingError) }
}

impl fmt::Display for PaddingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("padding does not fit the frame")
    }
}

impl std::error::Error for PaddingError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(frame_type: FrameType, flags: u8) -> FrameHeader {
        FrameHeader { length: 0, frame_type, flags, reserved: false, stream_id: 1 }
    }

    #[test]
    fn what_surrounds_a_fragment_is_stripped() {
        use FrameType::{Continuation, Headers, PushPromise};
        for (frame_type, flags, payload, expected) in [
            (Headers, 0, &b"abc"[..], Ok(&b"abc"[..])),
            (Headers, flag::PADDED, b"\x02abc..", Ok(b"abc")),
            (Headers, flag::PRIORITY, b"PPPPPabc", Ok(b"abc")),
            (Headers, flag::PRIORITY | flag::PADDED, b"\x01PPPPPabc.", Ok(b"abc")),
            (Headers, flag::PADDED, b"\x03...", Ok(b"")),
            (Headers, flag::PADDED, b"\x04...", Err(PaddingError)),
            (Headers, flag::PADDED, b"", Err(PaddingError)),
            (Headers, flag::PRIORITY, b"PPPP", Err(PaddingError)),
            (Headers, flag::PRIORITY | flag::PADDED, b"\x02PPPPP.", Err(PaddingError)),
            (PushPromise, 0, b"\0\0\0\x02abc", Ok(b"abc")),
            (PushPromise, 0, b"\0\0\0", Err(PaddingError)),
            // Neither flag exists on CONTINUATION.
            (Continuation, flag::PADDED | flag::PRIORITY, b"\x02abc", Ok(b"\x02abc")),
        ] {
            assert_eq!(
                header_fragment(&header(frame_type, flags), payload),
                expected,
                "{frame_type:?} {flags} {payload:?}"
            );
        }
    }

    #[test]
    fn data_padding_leaves_room_for_its_own_length() {
        assert_eq!(data_padding(10, 9), Ok(9));
        assert_eq!(data_padding(10, 10), Err(PaddingError));
        assert_eq!(data_padding(1, 0), Ok(0));
    }
}
