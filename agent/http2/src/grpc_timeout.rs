//! The `grpc-timeout` header: a client's deadline as gRPC writes it.

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Digits that gRPC allows; a longer value is not a timeout.
const MAX_DIGITS: usize = 8;

/// Parses a `grpc-timeout` value such as `119999m` into nanoseconds (gRPC PROTOCOL-HTTP2.md: 1 to 8 ASCII digits and one
/// of the units `H M S m u n`).
///
/// `None` if it is not of that form. Hours can pass the range of `u64` nanoseconds (584 years): they saturate.
pub fn parse(value: &[u8]) -> Option<u64> {
    let (&unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let unit_ns = match unit {
        b'H' => 3600 * NS_PER_SECOND,
        b'M' => 60 * NS_PER_SECOND,
        b'S' => NS_PER_SECOND,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let count = digits.iter().fold(0_u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(count.saturating_mul(unit_ns))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn every_unit_and_the_values_kubelet_sends() {
        for (text, expected_ns) in [
            ("119999m", 119_999_000_000),
            ("120000m", 120_000_000_000),
            ("240000m", 240_000_000_000),
            ("9999950u", 9_999_950_000),
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("7n", 7),
            ("00000001n", 1),
            ("0m", 0),
            ("99999999S", 99_999_999_000_000_000),
            ("99999999H", u64::MAX),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected_ns), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_timeout() {
        for text in ["", "m", "1", "123456789m", "-1m", "+1m", " 1m", "1 m", "1.5S", "1h", "1s", "1mm", "１m"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
