//! Why a request was refused.

use std::fmt;

/// A request that is no well-formed `ExportTraceServiceRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    /// The OTLP message that was read, such as `Span`.
    pub message: &'static str,
    /// Bytes from the start of the request to the field at fault.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It goes on beyond the end of its message.
    Truncated,
    /// A varint has more than 64 bits.
    LongVarint,
    /// Its number is 0 or has more than 29 bits.
    FieldNumber,
    /// Its wire type does not exist, or is not the one that OTLP gives this field.
    WireType,
    /// A group ends that did not start.
    StrayGroupEnd,
    /// It is nested deeper than [`MAX_NESTING`](crate::MAX_NESTING).
    TooDeep,
    /// There are more than [`MAX_ENTRIES`](crate::MAX_ENTRIES) of its kind.
    TooMany,
    /// The request is longer than [`MAX_REQUEST_BYTES`](crate::MAX_REQUEST_BYTES).
    TooLong,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {} at byte {}: {}", self.message, self.offset, self.fault)
    }
}

impl std::error::Error for ParseError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "goes on beyond the end of its message",
            Self::LongVarint => "varint of more than 64 bits",
            Self::FieldNumber => "field number out of range",
            Self::WireType => "unexpected wire type",
            Self::StrayGroupEnd => "end of a group that did not start",
            Self::TooDeep => "nested too deep",
            Self::TooMany => "too many in one request",
            Self::TooLong => "request too long",
        })
    }
}
