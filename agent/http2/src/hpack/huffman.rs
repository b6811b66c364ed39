//! The Huffman code of HPACK strings (RFC 7541 §5.2, Appendix B).
//!
//! The code is canonical: within one length, codes count up in the order of the symbols, and a longer code continues where
//! the shorter ones ended. So the lengths alone define it, and a code is found by comparing it with one bound per length.
//! Codes of up to 8 bits, which is nearly all of ASCII, are looked up in one step.

use super::error::Malformed;

/// Longest code, that of EOS, in bits.
const MAX_CODE_BITS: usize = 30;
const EOS: u16 = 256;
const SHORT_BITS: usize = 8;

/// Bits of the shortest codes: a string grows by at most 8/5 when it is decoded.
pub(super) const SHORTEST_CODE_BITS: usize = 5;

/// Bits of the code of each octet, and of EOS (RFC 7541 Appendix B).
#[rustfmt::skip]
pub const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, // 0x00
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, // 0x10
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, // 0x20
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, // 0x30
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // 0x40
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, // 0x50
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, // 0x60
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, // 0x70
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, // 0x80
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, // 0x90
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, // 0xa0
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, // 0xb0
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, // 0xc0
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, // 0xd0
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, // 0xe0
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, // 0xf0
    30, // EOS
];

/// The code of each symbol, right-aligned in its [`CODE_BITS`].
pub const CODES: [u32; 257] = TABLES.codes;

/// Appends the decoded octets to `output`; `Ok(false)` if there would be more than `max_bytes` (what was decoded until
/// then stays in `output`).
pub fn decode(input: &[u8], max_bytes: usize, output: &mut Vec<u8>) -> Result<bool, Malformed> {
    let output_end = output.len() + max_bytes;
    let mut rest = input.iter();
    let mut bits = 0_u64; // left-aligned
    let mut bit_count = 0_usize;
    loop {
        while bit_count <= 56 {
            let Some(&octet) = rest.next() else { break };
            bits |= u64::from(octet) << (56 - bit_count);
            bit_count += 8;
        }
        if bit_count == 0 {
            return Ok(true);
        }
        // Missing bits read as ones, which is what padding must be.
        let window = (bits >> 32) as u32 | u32::MAX.checked_shr(bit_count as u32).unwrap_or(0);
        let (symbol, code_bits) = longest_match(window);
        if code_bits > bit_count {
            let is_padding = bit_count < 8 && window == u32::MAX;
            return if is_padding { Ok(true) } else { Err(Malformed::HuffmanPadding) };
        }
        if symbol == EOS {
            return Err(Malformed::HuffmanEos);
        }
        if output.len() == output_end {
            return Ok(false);
        }
        output.push(symbol as u8);
        bits <<= code_bits;
        bit_count -= code_bits;
    }
}

/// The symbol at the top of `window`, and the bits of its code. The code is complete: every window starts with one.
fn longest_match(window: u32) -> (u16, usize) {
    let (symbol, code_bits) = TABLES.short[(window >> (32 - SHORT_BITS)) as usize];
    if code_bits != 0 {
        return (symbol, code_bits as usize);
    }
    let mut code_bits = SHORT_BITS + 1;
    while u64::from(window) >= TABLES.end[code_bits] {
        code_bits += 1; // ends at the longest code, whose bound is 2^32
    }
    let code = window >> (32 - code_bits);
    let place = u32::from(TABLES.first_place[code_bits]) + (code - TABLES.first_code[code_bits]);
    (TABLES.symbols[place as usize], code_bits)
}

struct Tables {
    codes: [u32; 257],
    /// By the next 8 bits: symbol and code length, or length 0 if the code is longer.
    short: [(u16, u8); 1 << SHORT_BITS],
    /// Symbols in the order of their codes.
    symbols: [u16; 257],
    /// By length: the first code, and its place in `symbols`.
    first_code: [u32; MAX_CODE_BITS + 1],
    first_place: [u16; MAX_CODE_BITS + 1],
    /// By length: one past the last code of at most that length, left-aligned in 32 bits.
    end: [u64; MAX_CODE_BITS + 1],
}

static TABLES: Tables = build();

const fn build() -> Tables {
    let mut tables = Tables {
        codes: [0; 257],
        short: [(0, 0); 1 << SHORT_BITS],
        symbols: [0; 257],
        first_code: [0; MAX_CODE_BITS + 1],
        first_place: [0; MAX_CODE_BITS + 1],
        end: [0; MAX_CODE_BITS + 1],
    };
    let mut code = 0_u32;
    let mut place = 0_usize;
    let mut bits = 1;
    while bits <= MAX_CODE_BITS {
        code <<= 1;
        tables.first_code[bits] = code;
        tables.first_place[bits] = place as u16;
        let mut symbol = 0;
        while symbol < CODE_BITS.len() {
            if CODE_BITS[symbol] as usize == bits {
                tables.codes[symbol] = code;
                tables.symbols[place] = symbol as u16;
                if bits <= SHORT_BITS {
                    fill_short(&mut tables.short, symbol as u16, code, bits);
                }
                code += 1;
                place += 1;
            }
            symbol += 1;
        }
        tables.end[bits] = (code as u64) << (32 - bits);
        bits += 1;
    }
    assert!(tables.end[MAX_CODE_BITS] == 1 << 32, "the code is complete, so the search for a length always ends");
    tables
}

const fn fill_short(short: &mut [(u16, u8); 1 << SHORT_BITS], symbol: u16, code: u32, bits: usize) {
    let free_bits = SHORT_BITS - bits;
    let mut low = 0;
    while low < 1 << free_bits {
        short[((code as usize) << free_bits) | low] = (symbol, bits as u8);
        low += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes as RFC 7541 Appendix B prints them, right-aligned.
    #[rustfmt::skip]
    const APPENDIX_B: [u32; 257] = [
        0x1ff8, 0x7fffd8, 0xfffffe2, 0xfffffe3, 0xfffffe4, 0xfffffe5, 0xfffffe6, 0xfffffe7,
        0xfffffe8, 0xffffea, 0x3ffffffc, 0xfffffe9, 0xfffffea, 0x3ffffffd, 0xfffffeb, 0xfffffec,
        0xfffffed, 0xfffffee, 0xfffffef, 0xffffff0, 0xffffff1, 0xffffff2, 0x3ffffffe, 0xffffff3,
        0xffffff4, 0xffffff5, 0xffffff6, 0xffffff7, 0xffffff8, 0xffffff9, 0xffffffa, 0xffffffb,
        0x14, 0x3f8, 0x3f9, 0xffa, 0x1ff9, 0x15, 0xf8, 0x7fa,
        0x3fa, 0x3fb, 0xf9, 0x7fb, 0xfa, 0x16, 0x17, 0x18,
        0x0, 0x1, 0x2, 0x19, 0x1a, 0x1b, 0x1c, 0x1d,
        0x1e, 0x1f, 0x5c, 0xfb, 0x7ffc, 0x20, 0xffb, 0x3fc,
        0x1ffa, 0x21, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62,
        0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
        0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72,
        0xfc, 0x73, 0xfd, 0x1ffb, 0x7fff0, 0x1ffc, 0x3ffc, 0x22,
        0x7ffd, 0x3, 0x23, 0x4, 0x24, 0x5, 0x25, 0x26,
        0x27, 0x6, 0x74, 0x75, 0x28, 0x29, 0x2a, 0x7,
        0x2b, 0x76, 0x2c, 0x8, 0x9, 0x2d, 0x77, 0x78,
        0x79, 0x7a, 0x7b, 0x7ffe, 0x7fc, 0x3ffd, 0x1ffd, 0xffffffc,
        0xfffe6, 0x3fffd2, 0xfffe7, 0xfffe8, 0x3fffd3, 0x3fffd4, 0x3fffd5, 0x7fffd9,
        0x3fffd6, 0x7fffda, 0x7fffdb, 0x7fffdc, 0x7fffdd, 0x7fffde, 0xffffeb, 0x7fffdf,
        0xffffec, 0xffffed, 0x3fffd7, 0x7fffe0, 0xffffee, 0x7fffe1, 0x7fffe2, 0x7fffe3,
        0x7fffe4, 0x1fffdc, 0x3fffd8, 0x7fffe5, 0x3fffd9, 0x7fffe6, 0x7fffe7, 0xffffef,
        0x3fffda, 0x1fffdd, 0xfffe9, 0x3fffdb, 0x3fffdc, 0x7fffe8, 0x7fffe9, 0x1fffde,
        0x7fffea, 0x3fffdd, 0x3fffde, 0xfffff0, 0x1fffdf, 0x3fffdf, 0x7fffeb, 0x7fffec,
        0x1fffe0, 0x1fffe1, 0x3fffe0, 0x1fffe2, 0x7fffed, 0x3fffe1, 0x7fffee, 0x7fffef,
        0xfffea, 0x3fffe2, 0x3fffe3, 0x3fffe4, 0x7ffff0, 0x3fffe5, 0x3fffe6, 0x7ffff1,
        0x3ffffe0, 0x3ffffe1, 0xfffeb, 0x7fff1, 0x3fffe7, 0x7ffff2, 0x3fffe8, 0x1ffffec,
        0x3ffffe2, 0x3ffffe3, 0x3ffffe4, 0x7ffffde, 0x7ffffdf, 0x3ffffe5, 0xfffff1, 0x1ffffed,
        0x7fff2, 0x1fffe3, 0x3ffffe6, 0x7ffffe0, 0x7ffffe1, 0x3ffffe7, 0x7ffffe2, 0xfffff2,
        0x1fffe4, 0x1fffe5, 0x3ffffe8, 0x3ffffe9, 0xffffffd, 0x7ffffe3, 0x7ffffe4, 0x7ffffe5,
        0xfffec, 0xfffff3, 0xfffed, 0x1fffe6, 0x3fffe9, 0x1fffe7, 0x1fffe8, 0x7ffff3,
        0x3fffea, 0x3fffeb, 0x1ffffee, 0x1ffffef, 0xfffff4, 0xfffff5, 0x3ffffea, 0x7ffff4,
        0x3ffffeb, 0x7ffffe6, 0x3ffffec, 0x3ffffed, 0x7ffffe7, 0x7ffffe8, 0x7ffffe9, 0x7ffffea,
        0x7ffffeb, 0xffffffe, 0x7ffffec, 0x7ffffed, 0x7ffffee, 0x7ffffef, 0x7fffff0, 0x3ffffee,
        0x3fffffff,
    ];

    #[test]
    fn lengths_give_the_codes_of_the_rfc() {
        assert_eq!(CODES, APPENDIX_B);
    }

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut output = Vec::new();
        decode(input, usize::MAX / 2, &mut output).map(|_| output)
    }

    /// The code of `symbol`, padded with ones.
    fn encoded_alone(symbol: usize) -> Vec<u8> {
        let bits = u32::from(CODE_BITS[symbol]);
        let padded_bits = bits.next_multiple_of(8);
        let code = ((u64::from(CODES[symbol]) + 1) << (padded_bits - bits)) - 1;
        code.to_be_bytes()[8 - padded_bits as usize / 8..].to_vec()
    }

    #[test]
    fn every_octet_alone() {
        for octet in 0..=255_u8 {
            assert_eq!(decoded(&encoded_alone(octet as usize)), Ok(vec![octet]));
        }
    }

    #[test]
    fn eos_in_a_string_is_malformed() {
        assert_eq!(decoded(&encoded_alone(256)), Err(Malformed::HuffmanEos));
    }

    #[test]
    fn padding_is_at_most_seven_ones() {
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(Malformed::HuffmanPadding));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(Malformed::HuffmanPadding));
        assert_eq!(decoded(&[0xff]), Err(Malformed::HuffmanPadding));
    }

    #[test]
    fn output_stops_at_its_limit() {
        let mut output = b"x".to_vec();
        assert_eq!(decode(&[0b0001_1000, 0b1100_0111], 2, &mut output), Ok(false));
        assert_eq!(output, b"xaa");
    }
}
