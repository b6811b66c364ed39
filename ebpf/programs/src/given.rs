//! What an executed process was given: its arguments, and of its environment the `CNI_*` variables. Nothing else of it reaches
//! the ring.
//!
//! The environment is looked through in pieces: a variable, or as much of one as a piece holds. Each is read to where it would
//! stand in the record, and stays there only if its variable's name begins with `CNI_`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use spanlet_abi::event::exec;
use spanlet_abi::limits::{ARGUMENT_BYTES, CNI_BYTES, ENVIRONMENT_PIECE_BYTES, MAX_ENVIRONMENT_PIECES};

use crate::kernel::{at_most, copy_user, copy_user_string, current_task, field, opaque};
use crate::maps::{GIVEN, Given, layout, load, store};

/// How the name of a variable that is copied begins.
const COPIED_NAMES: [u8; 4] = *b"CNI_";

/// Reads what the current process was given; its head is then to be filled in but for what tells of the payload.
#[inline(always)]
pub fn read<const LOOP: bool>() -> Option<*mut Given> {
    let given = GIVEN.get_ptr_mut(0)?;
    let memory = field::<u64>(current_task(), layout!(task_mm))?;
    // SAFETY: points into the map.
    unsafe {
        arguments(given, memory)?;
        store!(given, at, field::<u64>(memory, layout!(mm_env_start))?);
        store!(given, end, field::<u64>(memory, layout!(mm_env_end))?);
        store!(given, inside, 0);
        store!(given, taking, 0);
        let done = if LOOP { by_helper(given) } else { bounded() };
        if !done {
            cut(given);
        }
        store!((&raw mut (*given).head), captured, load!(given, have) as u32);
    }
    Some(given)
}

/// # Safety
/// `given` points into its map.
#[inline(always)]
unsafe fn arguments(given: *mut Given, memory: u64) -> Option<()> {
    let start = field::<u64>(memory, layout!(mm_arg_start))?;
    let length = field::<u64>(memory, layout!(mm_arg_end))?.wrapping_sub(start);
    let bytes = at_most(length, ARGUMENT_BYTES as u64);
    // SAFETY: the caller's promise; `data` has room for ARGUMENT_BYTES.
    unsafe {
        if bytes != 0 && !copy_user((&raw mut (*given).data).cast(), bytes as u32, start) {
            return None;
        }
        store!(given, have, bytes);
        let head = &raw mut (*given).head;
        store!(head, length, length as u32);
        store!(head, field, bytes as u32);
        store!(head, note, 0);
    }
    Some(())
}

/// Takes the next piece of the environment; false when there is none, or no way on.
///
/// # Safety
/// `given` points into its map.
#[inline(always)]
unsafe fn piece(given: *mut Given) -> bool {
    // SAFETY: the caller's promise; behind `have` there is room for a piece.
    unsafe {
        let at = load!(given, at);
        if at >= load!(given, end) {
            return false;
        }
        let have = opaque(load!(given, have));
        if have >= (ARGUMENT_BYTES + CNI_BYTES) as u64 {
            cut(given);
            return false;
        }
        let to = (&raw mut (*given).data).cast::<u8>().add(have as usize);
        let Some(bytes) = copy_user_string(to, ENVIRONMENT_PIECE_BYTES as u32, at) else {
            cut(given);
            return false;
        };
        if load!(given, inside) == 0 {
            store!(given, taking, u32::from(to.cast::<[u8; 4]>().read_volatile() == COPIED_NAMES));
        }
        // The last byte of a full piece is the helper's zero, in place of a byte of the variable.
        let full = bytes == ENVIRONMENT_PIECE_BYTES as u64;
        let taken = if full { bytes - 1 } else { bytes };
        store!(given, inside, u32::from(full));
        store!(given, at, at.wrapping_add(taken));
        if load!(given, taking) != 0 {
            store!(given, have, have + taken);
        }
        true
    }
}

/// # Safety
/// `given` points into its map.
#[inline(always)]
unsafe fn cut(given: *mut Given) {
    // SAFETY: the caller's promise.
    unsafe { store!((&raw mut (*given).head), note, exec::ENVIRONMENT_CUT) };
}

/// Looks through the environment by a bounded loop; false when the bound was reached.
#[inline(always)]
fn bounded() -> bool {
    let mut i = 0u32;
    while i < MAX_ENVIRONMENT_PIECES {
        if piece_of_bounded_loop(i) == 0 {
            return true;
        }
        i += 1;
    }
    false
}

/// One turn; 0 when it was the last. A global function: it is verified by itself and not once a turn.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn piece_of_bounded_loop(_turn: u32) -> u32 {
    let Some(given) = GIVEN.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map.
    unsafe { piece(given) as u32 }
}

/// Looks through it by `bpf_loop`; false when its bound was reached.
///
/// # Safety
/// `given` points into its map.
#[inline(always)]
unsafe fn by_helper(given: *mut Given) -> bool {
    let mut context = given;
    // SAFETY: the callback has the type that the helper calls, and `context` outlives the call.
    let turns = unsafe { bpf_loop(MAX_ENVIRONMENT_PIECES, turn_of_loop as *mut c_void, (&raw mut context).cast(), 0) };
    turns < MAX_ENVIRONMENT_PIECES as i64
}

/// One turn; other than 0 ends the loop.
unsafe extern "C" fn turn_of_loop(_index: u64, given: *mut *mut Given) -> i64 {
    // SAFETY: `given` is that of `by_helper`.
    unsafe { if piece(*given) { 0 } else { 1 } }
}
