//! An HPACK encoder for tests (RFC 7541): every representation, with and without Huffman coding, with size updates.

use std::collections::VecDeque;

use spanlet_http2::hpack::huffman::{CODE_BITS, CODES};

const STATIC_ENTRIES: usize = 61;

/// How one field is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    /// Indexed if the table has the field, else with incremental indexing, as grpc-go does.
    Incremental,
    WithoutIndexing,
    NeverIndexed,
}

/// Keeps the dynamic table of a sender. It knows no static table, so all it sends is literal or dynamic.
#[derive(Debug)]
pub(crate) struct Encoder {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    max_bytes: usize,
    pub(crate) huffman: bool,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), max_bytes: 4096, huffman: true }
    }

    pub(crate) fn size_update(&mut self, max_bytes: usize, block: &mut Vec<u8>) {
        self.max_bytes = max_bytes;
        self.evict(0);
        integer(block, 0b0010_0000, 5, max_bytes);
    }

    pub(crate) fn field(&mut self, name: &[u8], value: &[u8], representation: Representation, block: &mut Vec<u8>) {
        let whole = self.entries.iter().position(|entry| entry.0 == name && entry.1 == value);
        if let (Some(position), Representation::Incremental) = (whole, representation) {
            integer(block, 0b1000_0000, 7, STATIC_ENTRIES + 1 + position);
            return;
        }
        let (pattern, prefix_bits) = match representation {
            Representation::Incremental => (0b0100_0000, 6),
            Representation::WithoutIndexing => (0b0000_0000, 4),
            Representation::NeverIndexed => (0b0001_0000, 4),
        };
        match self.entries.iter().position(|entry| entry.0 == name) {
            Some(position) => integer(block, pattern, prefix_bits, STATIC_ENTRIES + 1 + position),
            None => {
                block.push(pattern);
                string(block, name, self.huffman);
            }
        }
        string(block, value, self.huffman);
        if representation == Representation::Incremental {
            self.evict(name.len() + value.len() + 32);
            if name.len() + value.len() + 32 <= self.max_bytes {
                self.entries.push_front((name.to_vec(), value.to_vec()));
            }
        }
    }

    fn evict(&mut self, room_bytes: usize) {
        let size = |entries: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
            entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
        };
        while !self.entries.is_empty() && size(&self.entries) + room_bytes > self.max_bytes {
            self.entries.pop_back();
        }
    }
}

/// RFC 7541 §5.1.
pub(crate) fn integer(block: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let prefix_max = (1 << prefix_bits) - 1;
    if value < prefix_max {
        block.push(pattern | value as u8);
        return;
    }
    block.push(pattern | prefix_max as u8);
    let mut rest = value - prefix_max;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// RFC 7541 §5.2.
pub(crate) fn string(block: &mut Vec<u8>, octets: &[u8], huffman: bool) {
    if !huffman {
        integer(block, 0, 7, octets.len());
        block.extend_from_slice(octets);
        return;
    }
    let coded = huffman_coded(octets);
    integer(block, 0x80, 7, coded.len());
    block.extend_from_slice(&coded);
}

pub(crate) fn huffman_coded(octets: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let (mut bits, mut bit_count) = (0_u64, 0_u32);
    for &octet in octets {
        let code_bits = u32::from(CODE_BITS[octet as usize]);
        bits = bits << code_bits | u64::from(CODES[octet as usize]);
        bit_count += code_bits;
        while bit_count >= 8 {
            bit_count -= 8;
            coded.push((bits >> bit_count) as u8);
        }
        bits &= (1 << bit_count) - 1;
    }
    if bit_count > 0 {
        coded.push(((bits << (8 - bit_count)) | (0xff >> bit_count)) as u8);
    }
    coded
}
