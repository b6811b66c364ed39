//! An id in a server's answer: field 1 of a message on a CRI socket, if it is exactly 64 hexadecimal digits.

use spanlet_abi::event::{Kind, field};
use spanlet_abi::limits::ID_BYTES;

use crate::ahead::word;
use crate::batch;
use crate::maps::{Endpoint, load, store};
use crate::message::{FIELD_1, fill, stage};
use crate::streams::message_of;
use crate::walk::{Walk, mark_of};

/// Tag and length of a field 1 with 64 bytes.
pub const ID_HEAD_BYTES: u32 = 2;
/// Both, as they stand in memory.
pub const ID_HEAD: u16 = u16::from_le_bytes([FIELD_1, ID_BYTES as u8]);

/// A server's field 1 with 64 bytes may be one.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn head(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map; a word from a window's start lies inside it.
    unsafe {
        let message = message_of(endpoint);
        if load!(message, have).saturating_add(load!(message, left)) < ID_HEAD_BYTES + ID_BYTES as u32 {
            store!(message, stage, stage::REST);
            return;
        }
        store!(message, target, ID_HEAD_BYTES);
        if !fill(walk) {
            return;
        }
        store!(message, have, 0);
        let word = word((&raw const (*message).window).cast());
        store!(message, stage, if word as u16 == ID_HEAD { stage::ID } else { stage::REST });
    }
}

/// Tells it once it is whole.
///
/// # Safety
/// `walk` points into the maps.
#[inline(never)]
pub unsafe fn id(walk: Walk) {
    let Walk { endpoint, scratch } = walk;
    // SAFETY: points into the maps.
    unsafe {
        let message = message_of(endpoint);
        store!(message, target, ID_BYTES as u32);
        if !fill(walk) {
            return;
        }
        store!(message, stage, stage::REST);
        if !all_hexadecimal(endpoint) {
            return;
        }
        let note = field::BEGINS | field::COMPLETE;
        batch::set_out(walk, Kind::Field, load!(mark_of(endpoint), time_ns), ID_BYTES as u32, note, 1);
        batch::with_words(scratch, (&raw const (*message).window).cast(), ID_BYTES as u32);
    }
}

/// Eight digits at a time: a byte is a digit if it is in `0..=9` or in `a..=f`; none may have its high bit set.
#[inline(never)]
unsafe fn all_hexadecimal(endpoint: *mut Endpoint) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let (mut wrong, mut i) = (0u64, 0usize);
    while i < ID_BYTES / 8 {
        // SAFETY: inside the window, which is aligned to eight.
        let digits = unsafe { (&raw const (*endpoint).message.window).cast::<u64>().add(i).read_volatile() };
        // Adding up to the high bit compares each byte without a carry into the next, since none has its own high bit set.
        let low = digits & !HIGH;
        let from_0 = low + (0x80 - b'0' as u64) * ONES;
        let past_9 = low + (0x7f - b'9' as u64) * ONES;
        let from_a = low + (0x80 - b'a' as u64) * ONES;
        let past_f = low + (0x7f - b'f' as u64) * ONES;
        wrong |= digits | !((from_0 & !past_9) | (from_a & !past_f));
        i += 1;
    }
    wrong & HIGH == 0
}
