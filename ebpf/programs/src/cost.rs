//! What the programs cost, told by themselves: the kernel's own run statistics need CAP_SYS_ADMIN.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use spanlet_abi::counters::{Program, RUN_NS_MAX, Runs, TIMED_EVERY};

use crate::connection::now_ns;
use crate::maps::{RUNS, agent, load, store};

/// Runs a program's work, and times it when its turn has come. To be called once, at the top of an entry program.
///
/// The slot is this CPU's own, and each program of a mode has its number: no other writes there while this one runs.
#[inline(always)]
pub fn of(program: Program, work: impl FnOnce(*mut Runs)) {
    // SAFETY: the helper has no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(slot) = RUNS.get_ptr_mut(program as u32 * agent!(cpus) + cpu) else {
        return; // there is a slot for every possible CPU
    };
    // SAFETY: points into the map, in which only this CPU writes here.
    unsafe {
        begins(slot);
        work(slot);
        ends(slot);
    }
}

/// What the verifier takes for a pointer, as a number that can be reckoned with: through memory, as nothing else makes it forget.
///
/// # Safety
/// `slot` is the current run's, on a kernel that does not preempt it.
#[inline(always)]
pub unsafe fn number_of(slot: *mut Runs, pointer: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        store!(slot, number, pointer);
        load!(slot, number)
    }
}

/// # Safety
/// `slot` points into the map of runs.
#[inline(always)]
unsafe fn begins(slot: *mut Runs) {
    // SAFETY: the caller's promise.
    unsafe {
        let runs = load!(slot, runs).wrapping_add(1);
        store!(slot, runs, runs);
        if runs.is_multiple_of(TIMED_EVERY) {
            store!(slot, began_ns, now_ns());
        }
    }
}

/// When a run began is kept in the slot and not in a register: there are no two ways through the work for the verifier.
///
/// # Safety
/// `slot` points into the map of runs.
#[inline(always)]
unsafe fn ends(slot: *mut Runs) {
    // SAFETY: the caller's promise.
    unsafe {
        let began_ns = load!(slot, began_ns);
        if began_ns == 0 {
            return;
        }
        store!(slot, began_ns, 0);
        let took_ns = now_ns().wrapping_sub(began_ns);
        let took_ns = if took_ns > RUN_NS_MAX { RUN_NS_MAX } else { took_ns };
        store!(slot, timed_ns, load!(slot, timed_ns).wrapping_add(took_ns));
        store!(slot, timed, load!(slot, timed).wrapping_add(1));
    }
}
