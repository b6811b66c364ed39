//! The first message of a stream, as the kernel programs look at it: what of it they tell. See `ebpf/programs/src/message.rs`.

use spanlet_abi::event::field;
use spanlet_abi::limits::{ID_BYTES, NESTED_BYTES, STRING_BYTES, WINDOW_BYTES};

/// The first message of a stream.
#[derive(Default)]
pub(crate) struct Message {
    /// Prefix and content as far as they are there.
    pub(crate) bytes: Vec<u8>,
    pub(crate) told: usize,
    /// Offset and time of its last byte.
    pub(crate) end: Option<(u64, u64)>,
    pub(crate) streaming: bool,
}

// === impl Message ===

impl Message {
    /// Bytes of the first message that are not there yet, if `part` comes next.
    pub(crate) fn missing(&self, part: &[u8]) -> usize {
        let mut prefix = self.bytes.clone();
        prefix.truncate(5);
        prefix.extend(part.iter().take(5 - prefix.len()));
        match prefix.len() {
            5 => 5 + u32::from_be_bytes(prefix[1..5].try_into().unwrap()) as usize - self.bytes.len(),
            _ => part.len(),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() >= 5 && self.missing(&[]) == 0
    }

    /// Whether enough is there to find a field.
    fn has_window(&self) -> bool {
        self.bytes.len() >= 5 + WINDOW_BYTES || self.is_whole()
    }

    /// A request's field 1: where it begins, how much is told of it, and its note.
    pub(crate) fn field(&self) -> Option<(usize, usize, u32)> {
        let content = self.bytes.get(5..)?;
        if !self.has_window() || self.bytes[0] != 0 || content.first() != Some(&0x0a) {
            return None;
        }
        let (length, start) = varint(content, 1)?;
        match content.get(start)? {
            0x0a => {
                let (inner, at) = varint(content, start + 1)?;
                let told = inner.min(NESTED_BYTES);
                let cut = if told < inner { field::CUT } else { 0 };
                (at - start + inner <= length).then_some((5 + at, told, field::NESTED | cut))
            }
            0x20.. => {
                let told = length.min(STRING_BYTES);
                Some((5 + start, told, if told < length { field::CUT } else { 0 }))
            }
            _ => None,
        }
    }

    /// A response's field 1, if it is an id: told when it is whole.
    pub(crate) fn id(&self) -> Option<(usize, usize, u32)> {
        let content = self.bytes.get(5..)?;
        let id = content.get(2..2 + ID_BYTES)?;
        let is_one = content[..2] == [0x0a, ID_BYTES as u8] && id.iter().all(u8::is_ascii_hexdigit);
        (self.bytes[0] == 0 && is_one).then_some((7, ID_BYTES, 0))
    }
}

/// Value, and where it ends.
fn varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0;
    for shift in (0..28).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}
