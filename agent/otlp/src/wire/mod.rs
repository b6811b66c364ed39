//! The protobuf wire format (protobuf.dev, "Encoding"): varints, fields, length prefixes.

mod read;
mod write;

pub(crate) use read::{Body, Field, Malformed, Reader, wire_type};
pub(crate) use write::{
    bytes_field_len, len_field_len, put_bytes, put_fixed64, put_len, put_varint, put_varint_field, varint, varint_len,
};

/// Wire types (the low three bits of a tag).
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const LEN: u8 = 2;
pub(crate) const GROUP_START: u8 = 3;
pub(crate) const GROUP_END: u8 = 4;
pub(crate) const FIXED32: u8 = 5;
