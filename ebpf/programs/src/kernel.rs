//! Reading memory: the only callers of the read helpers.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str};
use spanlet_abi::layout::{ABSENT, RDONLY_CAST};
use spanlet_abi::limits::MAX_PID_LEVELS;

use crate::maps::{agent, layout};

/// A value in kernel memory, of at most eight bytes where [`casts`] says so: then it takes a load, else a helper's call, which is
/// some twenty times as long. A load gives zero where a call fails: no more is known of a bad address.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> Option<T> {
    if casts() && size_of::<T>() <= 8 {
        let word = cast(address, layout!(type_of_word)) as *const T;
        // SAFETY: the verifier takes it for a structure that begins with eight bytes; volatile, because the kernel changes it.
        return Some(unsafe { core::ptr::read_volatile(word) });
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes or fails; T is plain data.
    let result =
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) };
    // SAFETY: the helper wrote it in full.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

/// A field of a kernel structure, its offset taken from BTF.
#[inline(always)]
pub fn field<T: Copy>(structure: u64, offset: u32) -> Option<T> {
    if structure == 0 {
        return None;
    }
    read(structure.wrapping_add(offset as u64))
}

/// A field of a structure whose type the verifier knows: a load instead of a helper's call. The kernel turns a bad address into
/// zero.
///
/// # Safety
/// `structure` is a pointer that the verifier follows, and the type's BTF gave `offset`.
#[inline(always)]
pub unsafe fn typed<T: Copy>(structure: u64, offset: u32) -> T {
    // SAFETY: the caller's promise; volatile, because the structure is the kernel's and changes.
    unsafe { core::ptr::read_volatile(structure.wrapping_add(offset as u64) as *const T) }
}

/// Two words in kernel memory.
#[inline(always)]
pub fn read_pair(address: u64) -> Option<[u64; 2]> {
    if casts() { Some([read(address)?, read(address.wrapping_add(8))?]) } else { read(address) }
}

/// Whether the kernel lets programs say what type of structure an address is of (6.2 and newer).
#[inline(always)]
pub fn casts() -> bool {
    layout!(type_of_word) != ABSENT
}

/// `bpf_rdonly_cast`: the address as a pointer to a structure, given as its type's number in the kernel's BTF.
///
/// Only where [`casts`] says so; elsewhere the verifier does not get here, since it knows the layout. The agent puts the kernel's
/// function in the place of [`RDONLY_CAST`].
#[inline(always)]
pub fn cast(address: u64, structure: u32) -> u64 {
    let pointer: u64;
    // SAFETY: a call, which leaves nothing in the registers that it may change.
    unsafe {
        core::arch::asm!(
            "call {function}",
            function = const RDONLY_CAST,
            inlateout("r1") address => _,
            inlateout("r2") structure as u64 => _,
            lateout("r0") pointer,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(nostack, readonly)
        );
    }
    pointer
}

/// The lower half of what the verifier takes for a pointer, as a number that can be reckoned with.
#[inline(always)]
pub fn low_half(pointer: u64) -> u32 {
    let low: u64;
    // SAFETY: copies half of a register, and fills the other with zeroes.
    unsafe { core::arch::asm!("w0 = w1", in("r1") pointer, out("r0") low, options(nomem, nostack, preserves_flags)) };
    low as u32
}

/// Copies kernel memory.
///
/// # Safety
/// `to` has room for `length` bytes, and the verifier can see it.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, length: u32, from: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { bpf_probe_read_kernel(to.cast(), length, from as *const c_void) == 0 }
}

/// Copies user memory of the current process.
///
/// # Safety
/// `to` has room for `length` bytes, and the verifier can see it.
#[inline(always)]
pub unsafe fn copy_user(to: *mut u8, length: u32, from: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { bpf_probe_read_user(to.cast(), length, from as *const c_void) == 0 }
}

/// Copies a string of the current process, cut to `room`, with a final zero: how many bytes that is.
///
/// # Safety
/// `to` has `room` bytes, and the verifier can see it.
#[inline(always)]
pub unsafe fn copy_user_string(to: *mut u8, room: u32, from: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bpf_probe_read_user_str(to.cast(), room, from as *const c_void) };
    // Before 6.2 an empty string counts without its zero, all others with it.
    match bytes {
        0 => Some(1),
        1.. => Some(bytes as u64),
        _ => None,
    }
}

/// A value in user memory of the current process.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes or fails; T is plain data.
    let result =
        unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) };
    // SAFETY: the helper wrote it in full.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

/// Hides a value's history from LLVM, so that the comparison that follows stays as written, on this register.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut same = value;
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) same, options(nomem, nostack, preserves_flags)) };
    same
}

/// At most `most`, in a form that the verifier follows.
#[inline(always)]
pub fn at_most(value: u64, most: u64) -> u64 {
    let value = opaque(value);
    if value > most { most } else { value }
}

/// The address of the current thread's `struct task_struct`.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: the helper has no arguments; the pointer is only used as an address for reads that may fail.
    unsafe { bpf_get_current_task() }
}

/// The current process's id in the agent's pid namespace, 0 if it has none there.
#[inline(never)]
pub fn process_in_agent_namespace() -> u32 {
    let Some(leader) = field::<u64>(current_task(), layout!(task_group_leader)) else { return 0 };
    let Some(pid) = field::<u64>(leader, layout!(task_thread_pid)) else { return 0 };
    let Some(level) = field::<u32>(pid, layout!(pid_level)) else { return 0 };
    let numbers = pid.wrapping_add(layout!(pid_numbers) as u64);
    let mut i = 0u32;
    while i < MAX_PID_LEVELS {
        if i > level {
            return 0;
        }
        // struct upid { int nr; struct pid_namespace *ns; }
        let upid = numbers.wrapping_add(16 * i as u64);
        let Some(namespace) = read::<u64>(upid.wrapping_add(8)) else { return 0 };
        let Some(number) = field::<u32>(namespace, layout!(pid_namespace_inum)) else { return 0 };
        if number == agent!(pid_inum) {
            return read::<u32>(upid).unwrap_or(0);
        }
        i += 1;
    }
    0
}
