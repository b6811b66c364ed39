//! Why a header block could not be decoded.

use std::fmt;

/// A header block that could not be decoded to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The block breaks RFC 7541 (or was cut); the table after it is unknown.
    Malformed(Malformed),
    /// An earlier block was malformed or missed, so this one means nothing until
    /// [`Decoder::restart_late`](super::Decoder::restart_late).
    LostTrack,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It ends inside a representation; also what a block that was copied in part looks like.
    Truncated,
    /// An integer has more than [`MAX_INTEGER_CONTINUATIONS`](crate::limits::MAX_INTEGER_CONTINUATIONS) (RFC 7541 §5.1).
    IntegerTooLarge,
    /// Index 0 (RFC 7541 §6.1), or an index beyond both tables (§2.3.3).
    Index(u64),
    /// The Huffman code for EOS stands in a string (RFC 7541 §5.2).
    HuffmanEos,
    /// Huffman padding is longer than 7 bits or not all ones (RFC 7541 §5.2).
    HuffmanPadding,
    /// A size update above what the other side announced (RFC 7541 §6.3), in octets.
    SizeUpdateTooLarge(u64),
    /// A size update after the first field (RFC 7541 §4.2).
    SizeUpdateLate,
}

impl Malformed {
    /// One of a closed set of names, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::IntegerTooLarge => "integer_too_large",
            Self::Index(_) => "index",
            Self::HuffmanEos => "huffman_eos",
            Self::HuffmanPadding => "huffman_padding",
            Self::SizeUpdateTooLarge(_) => "size_update_too_large",
            Self::SizeUpdateLate => "size_update_late",
        }
    }
}

impl From<Malformed> for DecodeError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "malformed header block: {malformed}"),
            Self::LostTrack => f.write_str("header block after the dynamic table was lost"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("ends inside a field"),
            Self::IntegerTooLarge => f.write_str("integer has too many octets"),
            Self::Index(index) => write!(f, "index {index} stands for nothing"),
            Self::HuffmanEos => f.write_str("Huffman string contains EOS"),
            Self::HuffmanPadding => f.write_str("Huffman padding is wrong"),
            Self::SizeUpdateTooLarge(size_bytes) => {
                write!(f, "table size update to {size_bytes} octets is above the limit")
            }
            Self::SizeUpdateLate => f.write_str("table size update after a field"),
        }
    }
}

impl std::error::Error for DecodeError {}
impl std::error::Error for Malformed {}
