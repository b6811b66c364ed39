//! Writing to the ring buffer and to the loss counters: the only place that does. What a walk tells is put together in `batch`.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use spanlet_abi::counters::Counters;
use spanlet_abi::event::{HEAD_BYTES, Head, Kind, Reason, Record};
use spanlet_abi::limits::{GIVEN_BYTES, PATH_BYTES};

use crate::connection::now_ns;
use crate::kernel::{at_most, copy, opaque};
use crate::maps::{COUNTERS, EVENTS, Endpoint, Given, agent, load, store};

/// Writes an entry of several records, which the caller counts: the processor's so many-th.
#[inline(always)]
pub fn put(records: &[u8], number: u32) -> bool {
    EVENTS.output::<[u8]>(records, wakeup(number)).is_ok()
}

/// A path in whole words.
const PATH_ROOM: usize = PATH_BYTES.next_multiple_of(8);

/// Tells of an opened connection at once, with its path: whichever program finds it.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(never)]
pub unsafe fn tell_opened(endpoint: *mut Endpoint, path: *const u8, kind: u32, note: u32) {
    seen(Kind::Opened as u16);
    let sequence = next_of_writes(endpoint);
    let Some(mut entry) = EVENTS.reserve::<Record<PATH_ROOM>>(0) else {
        lost(Kind::Opened as u16, Reason::RingFull);
        return;
    };
    // SAFETY: the entry has room for a head and a path; `path` is one.
    let copied = unsafe {
        let record = entry.as_mut_ptr();
        let head = head_of(endpoint, Kind::Opened, sequence);
        let bytes = PATH_BYTES as u32;
        (&raw mut (*record).head).write(Head { length: bytes, captured: bytes, note, field: kind, ..head });
        // What the last word has beyond the path is to be zero.
        (&raw mut (*record).data).cast::<u64>().add(PATH_ROOM / 8 - 1).write_volatile(0);
        copy((&raw mut (*record).data).cast(), PATH_BYTES as u32, path as u64)
    };
    if copied {
        entry.submit(wakeup_now());
    } else {
        entry.discard(BPF_RB_NO_WAKEUP as u64);
        lost(Kind::Opened as u16, Reason::ReadFault);
    }
}

/// Writes a record of a read or a close at once: it may come while another thread's write sets out records of the same end.
#[inline(never)]
pub fn tell(endpoint: *mut Endpoint, kind: Kind, offset: u64, length: u32, note: u32) {
    // SAFETY: points into the map.
    let sequence = unsafe { load!(endpoint, read_sequence) }.wrapping_add(1);
    // SAFETY: as above.
    unsafe { store!(endpoint, read_sequence, sequence) };
    tell_of(endpoint, kind, sequence, |head| Head { offset, length, note, ..head });
}

/// Tells at once that what an end has just written was not walked.
#[inline(never)]
pub fn tell_lost_track(endpoint: *mut Endpoint, reason: Reason) {
    // SAFETY: points into the map.
    let offset = unsafe { load!(endpoint, written) };
    let sequence = next_of_writes(endpoint);
    tell_of(endpoint, Kind::LostTrack, sequence, |head| Head { offset, note: reason as u32, ..head });
}

/// Writes the head of a record of an end, and what is to be in it.
#[inline(always)]
fn tell_of(endpoint: *mut Endpoint, kind: Kind, sequence: u32, with: impl FnOnce(Head) -> Head) {
    seen(kind as u16);
    let Some(mut entry) = EVENTS.reserve::<Record<0>>(0) else {
        lost(kind as u16, Reason::RingFull);
        return;
    };
    // SAFETY: points into the map; the entry has room for a head.
    unsafe { (&raw mut (*entry.as_mut_ptr()).head).write(with(head_of(endpoint, kind, sequence))) };
    entry.submit(wakeup(sequence));
}

/// The number of the next record of what an end writes. It goes up even if the record is lost: the agent sees the gap.
#[inline(always)]
fn next_of_writes(endpoint: *mut Endpoint) -> u32 {
    // SAFETY: points into the map.
    unsafe {
        let sequence = load!(endpoint, sequence).wrapping_add(1);
        store!(endpoint, sequence, sequence);
        sequence
    }
}

/// The head of a record of what happens to an end just now.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
unsafe fn head_of(endpoint: *mut Endpoint, kind: Kind, sequence: u32) -> Head {
    // SAFETY: the caller's promise.
    unsafe {
        Head {
            kind: kind as u16,
            end: load!(endpoint, end) as u8,
            flags: 0,
            sequence,
            connection: load!(endpoint, connection),
            time_ns: now_ns(),
            begun_ns: 0,
            offset: 0,
            stream: 0,
            process: load!(endpoint, process),
            length: 0,
            captured: 0,
            note: 0,
            field: 0,
        }
    }
}

/// Whether an entry wakes the agent: once, until it has looked. Only some ask how full the ring is.
#[inline(always)]
fn wakeup(number: u32) -> u64 {
    /// A power of two: what so many entries take, of each processor's writes and of each end's reads, is small beside what may fill.
    const ASK_EVERY: u32 = 8;
    if number.is_multiple_of(ASK_EVERY) { wakeup_now() } else { BPF_RB_NO_WAKEUP as u64 }
}

#[inline(always)]
fn wakeup_now() -> u64 {
    if EVENTS.query(BPF_RB_AVAIL_DATA as u64) <= agent!(wake_bytes) as u64 {
        return BPF_RB_NO_WAKEUP as u64;
    }
    let Some(counters) = counters() else { return BPF_RB_NO_WAKEUP as u64 };
    // SAFETY: a field of a map value. Two CPUs that see 0 at once wake the agent twice, which does no harm.
    unsafe {
        if load!(counters, woken) != 0 {
            return BPF_RB_NO_WAKEUP as u64;
        }
        store!(counters, woken, 1);
    }
    BPF_RB_FORCE_WAKEUP as u64
}

/// Writes a record that is a head and nothing else, of no connection.
#[inline(never)]
pub fn tell_head(head: &Head) -> bool {
    seen(head.kind);
    let written = EVENTS.output::<Head>(head, wakeup_now()).is_ok();
    if !written {
        lost(head.kind, Reason::RingFull);
    }
    written
}

/// Writes the record of an executed process, as long as it is.
///
/// # Safety
/// `given` points into its map.
#[inline(always)]
pub unsafe fn tell_given(given: *mut Given) -> bool {
    seen(Kind::Exec as u16);
    // SAFETY: the head and at most all of the data behind it, both inside the map's value.
    let written = unsafe {
        let bytes = HEAD_BYTES as u64 + at_most(load!(given, have), GIVEN_BYTES as u64);
        EVENTS.output::<[u8]>(core::slice::from_raw_parts(given.cast::<u8>(), bytes as usize), wakeup_now())
    };
    if written.is_err() {
        lost(Kind::Exec as u16, Reason::RingFull);
    }
    written.is_ok()
}

/// Counts a record that was to be written.
#[inline(always)]
pub fn seen(kind: u16) {
    let Some(counters) = counters() else { return };
    let kind = opaque(kind as u64);
    if kind < Kind::COUNT as u64 {
        // SAFETY: inside the array; the counter is shared, so the addition is atomic.
        unsafe { add((&raw mut (*counters).seen).cast::<u64>().add(kind as usize), 1) };
    }
}

/// Counts a record that could not be written.
#[inline(never)]
pub fn lost(kind: u16, reason: Reason) {
    count_lost(kind, reason, 1);
}

/// The same of several.
#[inline(always)]
pub fn count_lost(kind: u16, reason: Reason, count: u64) {
    let Some(counters) = counters() else { return };
    let index = opaque(kind as u64 * Reason::COUNT as u64 + reason as u64);
    if index < (Kind::COUNT * Reason::COUNT) as u64 {
        // SAFETY: inside the array of arrays.
        unsafe { add((&raw mut (*counters).lost).cast::<u64>().add(index as usize), count) };
    }
}

#[inline(always)]
pub fn counters() -> Option<*mut Counters> {
    COUNTERS.get_ptr_mut(0)
}

/// Adds to a counter of 64 bits.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, count: u64) {
    // SAFETY: the caller's promise; aligned, since every counter is a u64 in a repr(C) struct of them. The target's core has
    // no read-modify-write atomics, the instruction set has this one.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) count) };
}

/// Adds to a counter of 32 bits.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn count(counter: *mut u32, by: i32) {
    // SAFETY: the caller's promise; as above.
    unsafe { core::arch::asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) counter, in(reg) by as i64) };
}
