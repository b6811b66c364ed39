//! What the frames other than DATA hold, as far as it matters to an observer (RFC 9113 §6.4, §6.5, §6.8).

use super::Settings;
use crate::frame::FrameType;
use crate::limits::{MAX_BLOCK_BYTES, MAX_SETTINGS};

/// Octets of a header frame that may surround its [`MAX_BLOCK_BYTES`]: pad length, priority, padding.
const AROUND_FRAGMENT_BYTES: usize = 1 + 5 + 255;

/// Table sizes that the other side announced and this one has not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct AnnouncedTable {
    unacknowledged: u32,
    latest_bytes: Option<usize>,
}

impl Settings {
    const HEADER_TABLE_SIZE: u16 = 0x01;
    const MAX_FRAME_SIZE: u16 = 0x05;

    /// Octets of one parameter.
    pub(super) const PARAMETER_LEN: usize = 6;

    /// Reads at most [`MAX_SETTINGS`] parameters; of repeated ones the last holds (RFC 9113 §6.5.3).
    pub(super) fn parse(payload: &[u8]) -> Self {
        let mut settings = Self::default();
        for parameter in payload.chunks_exact(Self::PARAMETER_LEN).take(MAX_SETTINGS) {
            let identifier = u16::from_be_bytes([parameter[0], parameter[1]]);
            let value = u32::from_be_bytes([parameter[2], parameter[3], parameter[4], parameter[5]]);
            match identifier {
                Self::HEADER_TABLE_SIZE => settings.header_table_bytes = Some(value),
                Self::MAX_FRAME_SIZE => settings.max_frame_bytes = Some(value),
                _ => {}
            }
        }
        settings
    }
}

impl AnnouncedTable {
    /// Notes a SETTINGS frame of the other side.
    pub(super) fn announce(&mut self, table_bytes: Option<u32>) {
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        self.latest_bytes = table_bytes.map(|bytes| bytes as usize).or(self.latest_bytes);
    }

    /// The size that holds from now on, once nothing is left to acknowledge.
    pub(super) fn acknowledge(&mut self) -> Option<usize> {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        if self.unacknowledged == 0 { self.latest_bytes.take() } else { None }
    }
}

/// Octets of a payload that are kept until the frame is whole. DATA is handed through; what is not looked at is not kept.
pub(super) fn kept_bytes(frame_type: FrameType) -> usize {
    match frame_type {
        FrameType::Headers | FrameType::PushPromise | FrameType::Continuation => {
            MAX_BLOCK_BYTES + AROUND_FRAGMENT_BYTES
        }
        FrameType::Settings => MAX_SETTINGS * Settings::PARAMETER_LEN,
        FrameType::RstStream => 4,
        FrameType::GoAway => 8,
        _ => 0,
    }
}

/// A big-endian number in a payload whose length [`crate::frame::FrameHeader::validate`] has checked.
pub(super) fn be_u32(payload: &[u8], at: usize) -> u32 {
    payload.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |octets| u32::from_be_bytes(*octets))
}
