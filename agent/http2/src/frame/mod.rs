//! HTTP/2 frames (RFC 9113 §4, §6): headers, payload layouts, and a reader for byte streams.

mod header;
mod payload;
mod reader;

pub use header::{FrameHeader, FrameType, HEADER_LEN, Invalid, flag};
pub use payload::{PaddingError, data_padding, header_fragment};
pub use reader::{FrameReader, ReadError, Step};

/// What a client sends before its first frame (RFC 9113 §3.4).
pub const CLIENT_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
