//! A piece of the writer's memory, read ahead: headers of frames, what they carry and what stands in front of messages are short
//! and close together, and one read of user memory takes as long as hundreds of instructions.
//!
//! It stands in the processor's scratch and counts only within the run that read it.

use crate::kernel::{at_most, copy_user};
use crate::maps::{AHEAD, AHEAD_SLACK, Scratch, load, store};
use crate::walk::{Walk, address, mark_of};

/// Where the bytes under the cursor are, at least `need` of them (at most [`AHEAD`], and no more than the segment has).
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn of_cursor(walk: Walk, need: u64) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    unsafe {
        let address = address(mark_of(walk.endpoint));
        if let Some(there) = holds(walk.scratch, address, need) {
            return Some(there);
        }
        if refill(walk) { holds(walk.scratch, address, 0) } else { None }
    }
}

/// Where `bytes` of user memory are, if they were read ahead; [`AHEAD_SLACK`] bytes from there on may be read.
///
/// # Safety
/// `scratch` points into the map.
#[inline(always)]
pub unsafe fn holds(scratch: *mut Scratch, address: u64, bytes: u64) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    unsafe {
        let at = address.wrapping_sub(load!(scratch, ahead_from));
        let have = load!(scratch, ahead_bytes);
        if at > have || have - at < bytes {
            return None;
        }
        Some((&raw const (*scratch).ahead).cast::<u8>().add(at_most(at, AHEAD as u64) as usize))
    }
}

/// Reads from the cursor on.
#[inline(never)]
unsafe fn refill(walk: Walk) -> bool {
    let Walk { endpoint, scratch } = walk;
    // SAFETY: points into the maps; the array has room for AHEAD bytes.
    unsafe {
        let mark = mark_of(endpoint);
        let (rest, remaining) = (load!(mark, end).wrapping_sub(load!(mark, at)), load!(mark, remaining));
        let bytes = at_most(if rest < remaining { rest } else { remaining }, AHEAD as u64);
        let from = address(mark);
        store!(scratch, ahead_from, from);
        if bytes == 0 || !copy_user((&raw mut (*scratch).ahead).cast(), bytes as u32, from) {
            store!(scratch, ahead_bytes, 0);
            return false;
        }
        store!(scratch, ahead_bytes, bytes);
        true
    }
}

/// Eight bytes from anywhere, which this target's compiler would take one by one.
///
/// # Safety
/// They lie inside a map's value.
#[inline(always)]
pub unsafe fn word(from: *const u8) -> u64 {
    let word: u64;
    // SAFETY: the caller's promise; the kernels of x86-64 and arm64 let programs read at any address.
    unsafe { core::arch::asm!("{0} = *(u64 *)({1} + 0)", out(reg) word, in(reg) from, options(readonly, nostack)) };
    word
}

/// Most that [`copy_words`] copies: a request's header block and most fields. More takes a helper's call, as long as this.
pub const WORDS_BYTES: usize = 64;
const _: () = assert!(WORDS_BYTES <= AHEAD_SLACK);

/// Copies `bytes`, at most [`WORDS_BYTES`], and zeroes up to the next multiple of eight.
///
/// # Safety
/// From `from` on there are [`WORDS_BYTES`] in a map's value, from `to` on a word more; `to` is aligned to eight.
#[inline(always)]
pub unsafe fn copy_words(to: *mut u8, from: *const u8, bytes: u64) {
    let to: *mut u64 = to.cast();
    let mut i = 0;
    while i < WORDS_BYTES / 8 {
        // SAFETY: the caller's promise.
        unsafe { to.add(i).write_volatile(word(from.add(8 * i))) };
        i += 1;
    }
    let whole = at_most(bytes >> 3, (WORDS_BYTES / 8) as u64) as usize;
    // SAFETY: as above.
    unsafe {
        let last = to.add(whole);
        last.write_volatile(last.read_volatile() & ((1u64 << (8 * (bytes & 7))) - 1));
    }
}
