//! The loop around a step of the walk, in the two ways that kernels allow. In both the verifier looks at a step once, not once a
//! turn: it counts the instructions of a step in thousands, and a program may have a million.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use spanlet_abi::limits::{MAX_LOOP_STEPS, MAX_STEPS};

use crate::maps::{ENDPOINTS, load};
use crate::walk::{Walk, step};

/// Walks by a bounded loop; false when the bound was reached.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn bounded(walk: Walk) -> bool {
    // SAFETY: the caller's promise.
    let index = unsafe { load!(walk.endpoint, index) };
    let mut i = 0u32;
    while i < MAX_STEPS {
        if step_of_bounded_loop(index) == 0 {
            return true;
        }
        i += 1;
    }
    false
}

/// One step; 0 when it was the last.
///
/// A global function is verified by itself and not where it is called. Kernels before 5.12 let it take numbers only, so the
/// endpoint is looked up again.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn step_of_bounded_loop(index: u32) -> u32 {
    let Some(walk) = ENDPOINTS.get_ptr_mut(index).and_then(Walk::of) else { return 0 };
    // SAFETY: it points into the maps.
    unsafe { step(walk) as u32 }
}

/// Walks by `bpf_loop`; false when its bound was reached.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn by_helper(walk: Walk) -> bool {
    let mut walk = walk;
    // SAFETY: the callback has the type that the helper calls, and `walk` outlives the call.
    let turns = unsafe { bpf_loop(MAX_LOOP_STEPS, turn_of_loop as *mut c_void, (&raw mut walk).cast(), 0) };
    turns < MAX_LOOP_STEPS as i64
}

/// One turn; other than 0 ends the loop.
unsafe extern "C" fn turn_of_loop(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` is that of `by_helper`.
    unsafe { if step(*walk) { 0 } else { 1 } }
}
