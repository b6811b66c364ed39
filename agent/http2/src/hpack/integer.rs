//! HPACK integers (RFC 7541 §5.1).

use super::error::Malformed;
use crate::limits::MAX_INTEGER_CONTINUATIONS;

/// Takes an integer with a prefix of `prefix_bits` (1 to 8) off the front of `input`; the bits before the prefix are ignored.
pub(super) fn take(input: &mut &[u8], prefix_bits: u32) -> Result<u64, Malformed> {
    let prefix_max = (1_u64 << prefix_bits) - 1;
    let mut value = u64::from(take_octet(input)?) & prefix_max;
    if value < prefix_max {
        return Ok(value);
    }
    for continuation in 0..MAX_INTEGER_CONTINUATIONS {
        let octet = take_octet(input)?;
        value += u64::from(octet & 0x7f) << (7 * continuation);
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::IntegerTooLarge)
}

fn take_octet(input: &mut &[u8]) -> Result<u8, Malformed> {
    let (&octet, rest) = input.split_first().ok_or(Malformed::Truncated)?;
    *input = rest;
    Ok(octet)
}

#[cfg(test)]
mod tests {
    use super::{Malformed, take};

    /// RFC 7541 Appendix C.1.
    #[test]
    fn examples_of_the_rfc() {
        for (octets, prefix_bits, expected) in
            [(&[0b1110_1010][..], 5, 10), (&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5, 1337), (&[0b0010_1010], 8, 42)]
        {
            let mut input = octets;
            assert_eq!(take(&mut input, prefix_bits), Ok(expected));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn leaves_what_follows() {
        let mut input = &[0x05, 0xaa][..];
        assert_eq!(take(&mut input, 7), Ok(5));
        assert_eq!(input, [0xaa]);
    }

    #[test]
    fn largest_integer_is_bounded_by_its_continuations() {
        assert_eq!(take(&mut &[0x7f, 0xff, 0xff, 0xff, 0x7f][..], 7), Ok(127 + (1 << 28) - 1));
        assert_eq!(take(&mut &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00][..], 7), Err(Malformed::IntegerTooLarge));
    }

    #[test]
    fn a_cut_integer_is_truncated() {
        for cut in [&[][..], &[0x7f], &[0x7f, 0x80]] {
            assert_eq!(take(&mut &cut[..], 7), Err(Malformed::Truncated));
        }
    }
}
