//! Frames made by hand.

use spanlet_http2::frame::{FrameHeader, FrameType, flag};

/// One frame as it goes over the wire; `length` is the payload's.
pub(crate) fn frame(frame_type: u8, flags: u8, stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    octets.extend([frame_type, flags]);
    octets.extend(stream_id.to_be_bytes());
    octets.extend(payload);
    octets
}

pub(crate) fn data(flags: u8, stream_id: u32, payload: &[u8]) -> Vec<u8> {
    frame(0, flags, stream_id, payload)
}

/// HEADERS that hold the whole block.
pub(crate) fn headers(flags: u8, stream_id: u32, block: &[u8]) -> Vec<u8> {
    frame(1, flags | flag::END_HEADERS, stream_id, block)
}

/// HEADERS whose block goes on.
pub(crate) fn headers_begun(stream_id: u32, fragment: &[u8]) -> Vec<u8> {
    frame(1, 0, stream_id, fragment)
}

pub(crate) fn continuation(flags: u8, stream_id: u32, fragment: &[u8]) -> Vec<u8> {
    frame(9, flags, stream_id, fragment)
}

pub(crate) fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let parameter = |&(identifier, value): &(u16, u32)| [&identifier.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(4, 0, 0, &parameters.iter().flat_map(parameter).collect::<Vec<u8>>())
}

pub(crate) fn settings_ack() -> Vec<u8> {
    frame(4, flag::ACK, 0, &[])
}

pub(crate) fn ping() -> Vec<u8> {
    frame(6, 0, 0, &[2, 4, 16, 16, 9, 14, 7, 7])
}

/// A header without a frame.
pub(crate) fn header(frame_type: FrameType, flags: u8, stream_id: u32, length: usize) -> FrameHeader {
    FrameHeader { length: length as u32, frame_type, flags, reserved: false, stream_id }
}
