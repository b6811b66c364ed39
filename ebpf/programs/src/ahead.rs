//! A piece of the writer's memory, read ahead: headers of frames and what stands in front of messages are short and close
//! together, and one read of user memory takes as long as hundreds of instructions.
//!
//! It stands in the endpoint's map value, and counts only within the run that read it.

use crate::emit;
use crate::kernel::{at_most, copy_user};
use crate::maps::{AHEAD, Endpoint, load, store};
use crate::walk::{address, mark_of};

/// Where the bytes under the cursor are, at least `need` of them (at most [`AHEAD`], and no more than the segment has).
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn of_cursor(endpoint: *mut Endpoint, need: u64) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    unsafe {
        let address = address(mark_of(endpoint));
        if offset(endpoint, address, need as u32).is_none() && !refill(endpoint) {
            return None;
        }
        let at = at_most(address.wrapping_sub(load!(endpoint, ahead_from)), AHEAD as u64);
        Some((&raw const (*endpoint).ahead).cast::<u8>().add(at as usize))
    }
}

/// The kernel's address of `bytes` of user memory, if they were read ahead.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn holds(endpoint: *mut Endpoint, address: u64, bytes: u32) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe {
        let at = offset(endpoint, address, bytes)?;
        Some((&raw const (*endpoint).ahead).cast::<u8>().add(at_most(at, AHEAD as u64) as usize) as u64)
    }
}

/// Where in what was read ahead `bytes` of user memory stand.
#[inline(always)]
unsafe fn offset(endpoint: *mut Endpoint, address: u64, bytes: u32) -> Option<u64> {
    // SAFETY: points into the map.
    unsafe {
        let at = address.wrapping_sub(load!(endpoint, ahead_from));
        let have = load!(endpoint, ahead_bytes);
        if at > have || have - at < bytes as u64 { None } else { Some(at) }
    }
}

/// Reads from the cursor on.
#[inline(never)]
unsafe fn refill(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map; the array has room for AHEAD bytes.
    unsafe {
        emit::flush_kernel_bytes(endpoint);
        let mark = mark_of(endpoint);
        let (rest, remaining) = (load!(mark, end).wrapping_sub(load!(mark, at)), load!(mark, remaining));
        let bytes = at_most(if rest < remaining { rest } else { remaining }, AHEAD as u64);
        let from = address(mark);
        store!(endpoint, ahead_from, from);
        if bytes == 0 || !copy_user((&raw mut (*endpoint).ahead).cast(), bytes as u32, from) {
            store!(endpoint, ahead_bytes, 0);
            return false;
        }
        store!(endpoint, ahead_bytes, bytes);
        true
    }
}

/// Eight bytes from anywhere, which this target's compiler would take one by one.
///
/// # Safety
/// They lie inside the map's value.
#[inline(always)]
pub unsafe fn word(from: *const u8) -> u64 {
    let word: u64;
    // SAFETY: the caller's promise; the kernels of x86-64 and arm64 let programs read at any address.
    unsafe { core::arch::asm!("{0} = *(u64 *)({1} + 0)", out(reg) word, in(reg) from, options(readonly, nostack)) };
    word
}
