//! Writes fields, and tells beforehand how long they will be.

/// Appends a base-128 varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let (bytes, len) = varint(value);
    out.extend_from_slice(&bytes[..len]);
}

/// A base-128 varint and its length.
#[inline]
pub(crate) fn varint(mut value: u64) -> ([u8; MAX_VARINT_LEN], usize) {
    let mut bytes = [0; MAX_VARINT_LEN];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}

const MAX_VARINT_LEN: usize = 10;

/// Bytes that [`put_varint`] writes, 1 to 10.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a field that is a varint.
pub(crate) fn put_varint_field(out: &mut Vec<u8>, tag: u32, value: u64) {
    put_varint(out, u64::from(tag));
    put_varint(out, value);
}

/// Appends the tag and length of a field whose content of `len` bytes is appended next.
pub(crate) fn put_len(out: &mut Vec<u8>, tag: u32, len: usize) {
    put_varint(out, u64::from(tag));
    put_varint(out, len as u64);
}

/// Appends a string, bytes or an encoded message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u32, content: &[u8]) {
    put_len(out, tag, content.len());
    out.extend_from_slice(content);
}

pub(crate) fn put_fixed64(out: &mut Vec<u8>, tag: u32, value: u64) {
    put_varint(out, u64::from(tag));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Bytes that [`put_bytes`] writes.
pub(crate) const fn bytes_field_len(tag: u32, content: &[u8]) -> usize {
    len_field_len(tag, content.len())
}

/// Bytes of a length-prefixed field with `len` bytes of content.
pub(crate) const fn len_field_len(tag: u32, len: usize) -> usize {
    varint_len(tag as u64) + varint_len(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_of_a_varint_is_what_is_written() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
            }
        }
    }
}
