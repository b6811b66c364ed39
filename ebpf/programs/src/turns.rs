//! The loop around a step of the walk, in the two ways that kernels allow. In both the verifier looks at a step once, not once a
//! turn: it counts the instructions of a step in thousands, and a program may have a million.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use spanlet_abi::limits::{MAX_LOOP_STEPS, MAX_STEPS};

use crate::connection;
use crate::maps::{Endpoint, load};
use crate::walk::step;

/// Walks by a bounded loop; false when the bound was reached.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn bounded(endpoint: *mut Endpoint) -> bool {
    // SAFETY: the caller's promise.
    let sk = unsafe { load!(endpoint, sk) };
    let mut i = 0u32;
    while i < MAX_STEPS {
        if step_of_bounded_loop(sk) == 0 {
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
extern "C" fn step_of_bounded_loop(sk: u64) -> u32 {
    let Some(endpoint) = connection::watched(sk) else { return 0 };
    // SAFETY: points into the map.
    unsafe { step(endpoint) as u32 }
}

/// What `bpf_loop` hands to its callback.
#[repr(C)]
struct Walk {
    endpoint: *mut Endpoint,
}

/// Walks by `bpf_loop`; false when its bound was reached.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn by_helper(endpoint: *mut Endpoint) -> bool {
    let mut walk = Walk { endpoint };
    // SAFETY: the callback has the type that the helper calls, and `walk` outlives the call.
    let turns = unsafe { bpf_loop(MAX_LOOP_STEPS, turn_of_loop as *mut c_void, (&raw mut walk).cast(), 0) };
    turns < MAX_LOOP_STEPS as i64
}

/// One turn; other than 0 ends the loop.
unsafe extern "C" fn turn_of_loop(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` is that of `by_helper`.
    unsafe { if step((*walk).endpoint) { 0 } else { 1 } }
}
