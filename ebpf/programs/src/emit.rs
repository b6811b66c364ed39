//! Writing records: the only place that touches the ring buffer and the loss counters.
//!
//! The walk sets out one record at a time in its endpoint ([`set_out`]); it is written when the next one is set out, when what it
//! copies is about to change, or when the run ends ([`flush`]). So there is one copy of the code that writes, for the verifier
//! too, and the end of a message can be told by the record that is still there.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use spanlet_abi::counters::Counters;
use spanlet_abi::event::{CLIENT, HEAD_BYTES, Head, Kind, Reason, Record, field, headers};
use spanlet_abi::limits::{GIVEN_BYTES, LARGE_RECORD_BYTES, SMALL_RECORD_BYTES};

use crate::kernel::{at_most, copy, copy_user, opaque};
use crate::maps::{COUNTERS, EVENTS, Endpoint, Given, agent, load, store};

/// Sets out a record without a payload: the walk's current frame, stream and offset.
///
/// The sequence number goes up whether or not there will be room: the agent sees the gap.
///
/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
pub unsafe fn set_out(endpoint: *mut Endpoint, kind: Kind, time_ns: u64, length: u32, note: u32, field: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        flush(endpoint);
        let head = &raw mut (*endpoint).head;
        let sequence = load!(endpoint, sequence).wrapping_add(1);
        store!(endpoint, sequence, sequence);
        store!(head, kind, kind as u16);
        store!(head, end, load!(endpoint, end) as u8);
        store!(head, flags, load!(endpoint, flags) as u8);
        store!(head, sequence, sequence);
        store!(head, connection, load!(endpoint, connection));
        store!(head, time_ns, time_ns);
        store!(head, begun_ns, load!(endpoint, frame_begun_ns));
        store!(head, offset, load!(endpoint, written));
        store!(head, stream, load!(endpoint, stream));
        store!(head, process, load!(endpoint, process));
        store!(head, length, length);
        store!(head, note, note);
        store!(head, field, field);
        store!(endpoint, kernel_bytes, 0);
        store!(endpoint, user_bytes, 0);
        store!(endpoint, pending, 1);
    }
}

/// Adds kernel memory to the record that is set out.
///
/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
pub unsafe fn with_kernel_bytes(endpoint: *mut Endpoint, from: u64, bytes: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(endpoint, kernel_from, from);
        store!(endpoint, kernel_bytes, bytes);
    }
}

/// Adds memory of the current process to the record that is set out, behind any kernel memory.
///
/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
pub unsafe fn with_user_bytes(endpoint: *mut Endpoint, from: u64, bytes: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(endpoint, user_from, from);
        store!(endpoint, user_bytes, bytes);
    }
}

/// Lets the record that is still there tell the end of a client's message too: that of its last field or, of a message without
/// one that is told, of the request's headers.
///
/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
pub unsafe fn ends_with(endpoint: *mut Endpoint) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let head = &raw mut (*endpoint).head;
        let (kind, note) = (load!(head, kind), load!(head, note));
        let complete = kind == Kind::Field as u16 && note & field::COMPLETE != 0
            || kind == Kind::Headers as u16
                && note & (headers::FRAME_COMPLETE | headers::CONTINUATION) == headers::FRAME_COMPLETE;
        let fits = load!(endpoint, pending) != 0
            && load!(head, end) == CLIENT
            && load!(head, stream) == load!(endpoint, stream)
            && complete;
        if fits {
            const { assert!(headers::ENDS == field::ENDS) };
            store!(head, note, note | field::ENDS);
            let written = load!(endpoint, written);
            if kind == Kind::Headers as u16 {
                store!(head, field, written.wrapping_sub(load!(head, offset)) as u32);
            }
            store!(head, offset, written);
        }
        fits
    }
}

/// Writes the record that is set out if it copies kernel memory, which is about to change.
///
/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
pub unsafe fn flush_kernel_bytes(endpoint: *mut Endpoint) {
    // SAFETY: the caller's promise.
    unsafe {
        if load!(endpoint, pending) != 0 && load!(endpoint, kernel_bytes) != 0 {
            write_out(endpoint);
        }
    }
}

/// Writes the record that is set out, if one is.
#[inline(always)]
pub fn flush(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    if unsafe { load!(endpoint, pending) } != 0 {
        write_out(endpoint);
    }
}

#[inline(never)]
fn write_out(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, pending, 0);
        let bytes = load!(endpoint, kernel_bytes) + load!(endpoint, user_bytes);
        let head = &raw mut (*endpoint).head;
        store!(head, captured, bytes);
        seen(load!(head, kind));
        let wakeup = wakeup(load!(head, sequence));
        let written = if bytes == 0 {
            write::<0>(endpoint, wakeup)
        } else if bytes <= SMALL_RECORD_BYTES as u32 - KERNEL_BYTES as u32 {
            write::<SMALL_RECORD_BYTES>(endpoint, wakeup)
        } else {
            write::<LARGE_RECORD_BYTES>(endpoint, wakeup)
        };
        if let Err(reason) = written {
            count_lost(load!(head, kind), reason); // in place: a call more would be one too deep
        }
    }
}

/// Writes a record of a read or a close at once: it may come while another thread's write sets out records of the same end.
#[inline(never)]
pub fn tell(endpoint: *mut Endpoint, kind: Kind, offset: u64, length: u32, note: u32) {
    seen(kind as u16);
    let Some(mut entry) = EVENTS.reserve::<Record<0>>(0) else {
        // SAFETY: points into the map.
        unsafe { store!(endpoint, read_sequence, load!(endpoint, read_sequence).wrapping_add(1)) };
        lost(kind as u16, Reason::RingFull);
        return;
    };
    // SAFETY: points into the map; the entry has room for a head.
    let sequence = unsafe { load!(endpoint, read_sequence) }.wrapping_add(1);
    // SAFETY: as above.
    unsafe {
        store!(endpoint, read_sequence, sequence);
        let head = &raw mut (*entry.as_mut_ptr()).head;
        head.write(Head {
            kind: kind as u16,
            end: load!(endpoint, end) as u8,
            flags: 0,
            sequence,
            connection: load!(endpoint, connection),
            time_ns: crate::connection::now_ns(),
            begun_ns: 0,
            offset,
            stream: 0,
            process: load!(endpoint, process),
            length,
            captured: 0,
            note,
            field: 0,
        });
    }
    entry.submit(wakeup(sequence));
}

/// Whether a record wakes the agent: once, until it has looked. Only some records of an end ask how full the ring is.
#[inline(always)]
fn wakeup(sequence: u32) -> u64 {
    /// A power of two: what so many records of every end take is small beside what may fill.
    const ASK_EVERY: u32 = 8;
    if sequence.is_multiple_of(ASK_EVERY) { wakeup_now() } else { BPF_RB_NO_WAKEUP as u64 }
}

#[inline(always)]
fn wakeup_now() -> u64 {
    if EVENTS.query(BPF_RB_AVAIL_DATA as u64) <= agent!(wake_bytes) as u64 {
        return BPF_RB_NO_WAKEUP as u64;
    }
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return BPF_RB_NO_WAKEUP as u64 };
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
    let Some(mut entry) = EVENTS.reserve::<Record<0>>(0) else {
        lost(head.kind, Reason::RingFull);
        return false;
    };
    // SAFETY: both point to a head.
    unsafe { copy_head((&raw mut (*entry.as_mut_ptr()).head).cast(), (&raw const *head).cast()) };
    entry.submit(wakeup_now());
    true
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

/// Most bytes of kernel memory in a record.
const KERNEL_BYTES: u64 = 128;

/// # Safety
/// `endpoint` points into the map of endpoints.
#[inline(always)]
unsafe fn write<const N: usize>(endpoint: *mut Endpoint, wakeup: u64) -> Result<(), Reason> {
    // SAFETY: the caller's promise; both parts are clamped to the room, which the larger records have for both.
    unsafe {
        let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else { return Err(Reason::RingFull) };
        let record = entry.as_mut_ptr();
        copy_head((&raw mut (*record).head).cast(), (&raw const (*endpoint).head).cast());
        let data: *mut u8 = (&raw mut (*record).data).cast();
        if N == 0 || payload::<N>(endpoint, data) {
            entry.submit(wakeup);
            Ok(())
        } else {
            entry.discard(wakeup);
            Err(Reason::ReadFault)
        }
    }
}

/// Word by word: a copy of the structure would be a loop over bytes on this target.
///
/// # Safety
/// Both point to a head, which is aligned to eight.
#[inline(always)]
unsafe fn copy_head(to: *mut u64, from: *const u64) {
    let mut i = 0;
    while i < HEAD_BYTES / 8 {
        // SAFETY: inside both heads.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        i += 1;
    }
}

/// # Safety
/// `endpoint` points into the map of endpoints, `data` has room for `N` bytes.
#[inline(always)]
unsafe fn payload<const N: usize>(endpoint: *mut Endpoint, data: *mut u8) -> bool {
    // SAFETY: the caller's promise; the first part is at most KERNEL_BYTES, the second ends before N.
    unsafe {
        let kernel_bytes = at_most(load!(endpoint, kernel_bytes) as u64, KERNEL_BYTES);
        if kernel_bytes != 0 && !copy(data, kernel_bytes as u32, load!(endpoint, kernel_from)) {
            return false;
        }
        let kernel_bytes = at_most(load!(endpoint, kernel_bytes) as u64, KERNEL_BYTES);
        let user_bytes = at_most(load!(endpoint, user_bytes) as u64, N as u64 - KERNEL_BYTES);
        user_bytes == 0 || copy_user(data.add(kernel_bytes as usize), user_bytes as u32, load!(endpoint, user_from))
    }
}

/// Counts a record that was to be written.
#[inline(always)]
pub fn seen(kind: u16) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    let kind = opaque(kind as u64);
    if kind < Kind::COUNT as u64 {
        // SAFETY: inside the array; the counter is shared, so the addition is atomic.
        unsafe { add((&raw mut (*counters).seen).cast::<u64>().add(kind as usize)) };
    }
}

/// Counts a record that could not be written.
#[inline(never)]
pub fn lost(kind: u16, reason: Reason) {
    count_lost(kind, reason);
}

#[inline(always)]
fn count_lost(kind: u16, reason: Reason) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    let index = opaque(kind as u64 * Reason::COUNT as u64 + reason as u64);
    if index < (Kind::COUNT * Reason::COUNT) as u64 {
        // SAFETY: inside the array of arrays.
        unsafe { add((&raw mut (*counters).lost).cast::<u64>().add(index as usize)) };
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

/// Adds to a counter of 32 bits.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn count(counter: *mut u32, by: i32) {
    // SAFETY: the caller's promise; as above.
    unsafe { core::arch::asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) counter, in(reg) by as i64) };
}
