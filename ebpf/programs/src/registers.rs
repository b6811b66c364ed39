//! A system call as its thread's registers tell it: which it is, and where the buffers of a write are.

use spanlet_abi::layout::{Action, SYSTEM_CALLS};

use crate::kernel::{opaque, read_user, typed};
use crate::maps::{ACTIONS, Mark, layout, store};

/// Offset in `struct user_msghdr` of the vectors' address, behind which their number stands (linux/socket.h): the same on every
/// 64-bit architecture.
const MSGHDR_VECTORS: u64 = 16;

/// The system call's number.
#[inline(always)]
pub fn number(regs: u64) -> u64 {
    // SAFETY: the verifier knows the type of the registers.
    let number: u32 = unsafe { typed(regs, layout!(regs_number)) };
    number as u64
}

/// An argument of the system call.
#[inline(always)]
pub fn argument(regs: u64, register: u32) -> u64 {
    // SAFETY: the verifier knows the type of the registers.
    unsafe { typed(regs, register) }
}

/// What a system call does, an [`Action`].
#[inline(always)]
pub fn action_of(number: u64) -> u8 {
    let number = opaque(number);
    if number >= SYSTEM_CALLS as u64 {
        return 0;
    }
    // SAFETY: inside the table; volatile because the table is set after compilation.
    unsafe { core::ptr::read_volatile((&raw const ACTIONS).cast::<u8>().add(number as usize)) }
}

/// Whether this is a write whose arguments say where its bytes are.
#[inline(always)]
fn is_write(action: u8) -> bool {
    action >= Action::Write as u8 && action <= Action::SendMessage as u8
}

/// Sets the mark's cursor on the bytes of a write; false if this is none, or they are not to be found.
///
/// # Safety
/// `mark` points into its map.
#[inline(always)]
pub unsafe fn buffers(regs: u64, action: u8, mark: *mut Mark) -> bool {
    if !is_write(action) {
        return false;
    }
    let (argument_1, argument_2) = (argument(regs, layout!(regs_argument_1)), argument(regs, layout!(regs_argument_2)));
    if action == Action::Write as u8 {
        // SAFETY: the caller's promise.
        unsafe {
            store!(mark, buffer, argument_1);
            store!(mark, end, argument_2);
        }
        return true;
    }
    let (mut vectors, mut count) = (argument_1, argument_2);
    if action != Action::WriteVector as u8 {
        let Some(of_message) = read_user::<[u64; 2]>(argument_1.wrapping_add(MSGHDR_VECTORS)) else { return false };
        [vectors, count] = of_message;
    }
    // SAFETY: the caller's promise.
    unsafe {
        store!(mark, segments, vectors);
        store!(mark, segments_left, count as u32);
    }
    true
}
