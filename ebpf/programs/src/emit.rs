//! Writing records: the only place that touches the ring buffer and the loss counters.

use spanlet_abi::counters::Counters;
use spanlet_abi::event::{Head, Kind, Reason, Record};

use crate::connection::current_process;
use crate::maps::{COUNTERS, EVENTS, Endpoint, load, store};

/// Writes one record about an endpoint, its payload by `fill`, which says whether it could be read.
///
/// The sequence number goes up whether or not there was room: the agent sees the gap.
///
/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
pub unsafe fn record<const N: usize>(endpoint: *mut Endpoint, mut head: Head, fill: impl FnOnce(*mut u8) -> bool) {
    // SAFETY: the caller's promise.
    unsafe {
        head.connection = load!(endpoint, connection);
        head.end = load!(endpoint, end) as u8;
        head.sequence = load!(endpoint, sequence).wrapping_add(1);
        store!(endpoint, sequence, head.sequence);
        head.process = current_process(endpoint);
    }
    seen(head.kind);
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        lost(head.kind, Reason::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry has room for a Record<N>.
    let filled = unsafe {
        (&raw mut (*record).head).write(head);
        fill((&raw mut (*record).data).cast())
    };
    if filled {
        entry.submit(0);
    } else {
        entry.discard(0);
        lost(head.kind, Reason::ReadFault);
    }
}

/// Counts a record that was to be written.
#[inline(always)]
pub fn seen(kind: u16) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0)
        && (kind as usize) < Kind::COUNT
    {
        // SAFETY: inside the array; the counter is shared, so the addition is atomic.
        unsafe { add((&raw mut (*counters).seen).cast::<u64>().add(kind as usize)) };
    }
}

/// Counts a record that could not be written.
#[inline(always)]
pub fn lost(kind: u16, reason: Reason) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0)
        && (kind as usize) < Kind::COUNT
    {
        let index = kind as usize * Reason::COUNT + reason as usize;
        // SAFETY: inside the array of arrays.
        unsafe { add((&raw mut (*counters).lost).cast::<u64>().add(index)) };
    }
}

/// Whether connections older than the attach are still to be found.
#[inline(always)]
pub fn old_connections() -> Option<*mut u64> {
    let counters: *mut Counters = COUNTERS.get_ptr_mut(0)?;
    // SAFETY: a field of a map value.
    unsafe { if load!(counters, old_connections) == 0 { None } else { Some(&raw mut (*counters).old_connections) } }
}

/// # Safety
/// `counter` points into a map value.
#[inline(always)]
unsafe fn add(counter: *mut u64) {
    // SAFETY: the caller's promise; aligned, since every counter is a u64 in a repr(C) struct of them. The target's core has
    // no read-modify-write atomics, the instruction set has this one.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64) };
}
