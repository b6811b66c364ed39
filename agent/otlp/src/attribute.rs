//! Writes attributes and links: what [`Additions`](crate::Additions) and [`build`](crate::build) share.

use crate::schema::tag;
use crate::view::Value;
use crate::wire::{
    bytes_field_len, len_field_len, put_bytes, put_fixed64, put_len, put_varint_field, varint, varint_len,
};

/// Appends a `KeyValue` as the field `attributes` of the message being written.
pub(crate) fn put_attribute(out: &mut Vec<u8>, attributes: u32, key: &str, value: Value<'_>) {
    match value {
        Value::Str(text) if key.len() + text.len() <= MAX_SHORT && attributes < 0x80 => {
            put_short_key(out, attributes as u8, key, 2 + text.len());
            out.extend_from_slice(&[tag::ANY_STRING as u8, text.len() as u8]);
            out.extend_from_slice(text.as_bytes());
            return;
        }
        Value::Int(int) if key.len() <= MAX_SHORT && attributes < 0x80 => {
            let (varint, len) = varint(int.cast_unsigned());
            put_short_key(out, attributes as u8, key, 1 + len);
            out.push(tag::ANY_INT as u8);
            out.extend_from_slice(&varint[..len]);
            return;
        }
        _ => {}
    }
    let value_len = any_value_len(value);
    let len = bytes_field_len(tag::KEY_VALUE_KEY, key.as_bytes()) + len_field_len(tag::KEY_VALUE_VALUE, value_len);
    put_len(out, attributes, len);
    put_bytes(out, tag::KEY_VALUE_KEY, key.as_bytes());
    put_len(out, tag::KEY_VALUE_VALUE, value_len);
    put_any_value(out, value);
}

/// Most bytes of a key and a value with which every length of their attribute takes one byte, as most do.
const MAX_SHORT: usize = 100;

/// Appends an attribute up to its value, of which `value_len` bytes follow.
#[inline]
fn put_short_key(out: &mut Vec<u8>, attributes: u8, key: &str, value_len: usize) {
    let len = 4 + key.len() + value_len;
    out.reserve(2 + len);
    out.extend_from_slice(&[attributes, len as u8, tag::KEY_VALUE_KEY as u8, key.len() as u8]);
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&[tag::KEY_VALUE_VALUE as u8, value_len as u8]);
}

/// Appends a `Link` to the span being written.
pub(crate) fn put_link(out: &mut Vec<u8>, trace_id: [u8; 16], span_id: [u8; 8]) {
    let len = bytes_field_len(tag::LINK_TRACE_ID, &trace_id) + bytes_field_len(tag::LINK_SPAN_ID, &span_id);
    put_len(out, tag::SPAN_LINKS, len);
    put_bytes(out, tag::LINK_TRACE_ID, &trace_id);
    put_bytes(out, tag::LINK_SPAN_ID, &span_id);
}

fn any_value_len(value: Value<'_>) -> usize {
    match value {
        Value::Str(string) => bytes_field_len(tag::ANY_STRING, string.as_bytes()),
        Value::Int(int) => 1 + varint_len(int.cast_unsigned()),
        Value::Bool(_) => 2,
        Value::Double(_) => 9,
        Value::Bytes(bytes) => bytes_field_len(tag::ANY_BYTES, bytes),
        Value::Other(encoded) => encoded.len(),
    }
}

/// Members of a oneof are written even if they are zero.
fn put_any_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Str(string) => put_bytes(out, tag::ANY_STRING, string.as_bytes()),
        Value::Int(int) => put_varint_field(out, tag::ANY_INT, int.cast_unsigned()),
        Value::Bool(bool) => put_varint_field(out, tag::ANY_BOOL, u64::from(bool)),
        Value::Double(double) => put_fixed64(out, tag::ANY_DOUBLE, double.to_bits()),
        Value::Bytes(bytes) => put_bytes(out, tag::ANY_BYTES, bytes),
        Value::Other(encoded) => out.extend_from_slice(encoded),
    }
}
