//! The records of a walk: set out one behind the other in this processor's scratch ([`set_out`]), they go into the ring together, as
//! one entry, when the run ends or the batch is full ([`flush`]): an entry takes as long as hundreds of instructions. Until then
//! the last one can be changed, so that it tells the end of a message too.
//!
//! ```text
//! an entry:  head │ its bytes │ zeroes up to a multiple of 8 │ head │ …
//! ```

use spanlet_abi::event::{CLIENT, HEAD_BYTES, Head, Kind, Reason, field, headers};
use spanlet_abi::limits::{BATCH_BYTES, HEADER_BLOCK_BYTES};

use crate::ahead::{self, WORDS_BYTES, copy_words};
use crate::emit::{add, count_lost, counters, put, seen};
use crate::kernel::{at_most, copy, copy_user, opaque};
use crate::maps::{KIND_WORDS, NO_RECORD, RECORDS_BYTES, Scratch, load, store};
use crate::walk::Walk;

/// Most bytes that are added to a record at once, in whole words.
const PAYLOAD_BYTES: usize = HEADER_BLOCK_BYTES + 8;

/// Begins an empty batch.
///
/// # Safety
/// `scratch` points into the map.
#[inline(always)]
pub unsafe fn begin(scratch: *mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(scratch, used, 0);
        store!(scratch, last, NO_RECORD);
    }
}

/// Sets out a record without a payload: the walk's current frame, stream and offset.
///
/// The sequence number goes up whether or not there will be room: the agent sees the gap.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn set_out(walk: Walk, kind: Kind, time_ns: u64, length: u32, note: u32, field: u32) {
    let Walk { endpoint, scratch } = walk;
    // SAFETY: the caller's promise.
    unsafe {
        if load!(scratch, used) > BATCH_BYTES as u64 {
            flush(walk);
        }
        let count = (&raw mut (*scratch).counts).cast::<u8>().add(kind as usize);
        count.write_volatile(count.read_volatile().wrapping_add(1));
        let at = at_most(load!(scratch, used), BATCH_BYTES as u64);
        store!(scratch, last, at);
        store!(scratch, used, at + HEAD_BYTES as u64);
        let head: *mut Head = (&raw mut (*scratch).records).cast::<u8>().add(at as usize).cast();
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
        store!(head, captured, 0);
        store!(head, note, note);
        store!(head, field, field);
    }
}

/// Changes the offset of the record that was set out last.
///
/// # Safety
/// `scratch` points into the map, in which a record was just set out.
#[inline(always)]
pub unsafe fn at_offset(scratch: *mut Scratch, offset: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let head = head_at(scratch, load!(scratch, last));
        store!(head, offset, offset);
    }
}

/// Adds up to [`WORDS_BYTES`] from a map's value, behind which as many may be read, to the record that was just set out, which has
/// no bytes yet.
///
/// # Safety
/// `scratch` and `from` point into maps.
#[inline(always)]
pub unsafe fn with_words(scratch: *mut Scratch, from: *const u8, bytes: u32) {
    // SAFETY: the caller's promise; behind any end of a record there is room for more.
    unsafe {
        let bytes = at_most(bytes as u64, WORDS_BYTES as u64);
        copy_words(payload_at(scratch, load!(scratch, used)), from, bytes);
        grow(scratch, bytes);
    }
}

/// Adds memory of the current process to the record that was just set out, at most [`HEADER_BLOCK_BYTES`]. A record whose memory
/// cannot be read is lost.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn with_memory(walk: Walk, address: u64, bytes: u32) {
    let scratch = walk.scratch;
    // SAFETY: the caller's promise.
    unsafe {
        let is_first = load!(head_at(scratch, load!(scratch, last)), captured) == 0;
        match ahead::holds(scratch, address, bytes as u64) {
            Some(there) if is_first && bytes <= WORDS_BYTES as u32 => with_words(scratch, there, bytes),
            Some(there) => with_bytes(scratch, there as u64, bytes, true),
            None => with_bytes(scratch, address, bytes, false),
        }
    }
}

/// # Safety
/// `scratch` points into the map; of kernel memory `from` is inside a map's value.
#[inline(never)]
unsafe fn with_bytes(scratch: *mut Scratch, from: u64, bytes: u32, in_kernel: bool) {
    // SAFETY: the caller's promise; the room behind a record's head is that of the largest.
    unsafe {
        let bytes = at_most(bytes as u64, HEADER_BLOCK_BYTES as u64);
        if bytes == 0 {
            return;
        }
        let last = load!(scratch, last);
        let at = last + HEAD_BYTES as u64 + load!(head_at(scratch, last), captured) as u64;
        // What the last word has beyond the bytes is to be zero; where it begins before them, it is.
        let end = (at + bytes) & !7;
        if end >= at {
            let word = at_most(end, RECORDS_BYTES as u64 - 8) as usize;
            (&raw mut (*scratch).records).cast::<u8>().add(word).cast::<u64>().write_volatile(0);
        }
        let to = payload_at(scratch, at);
        let copied = if in_kernel { copy(to, bytes as u32, from) } else { copy_user(to, bytes as u32, from) };
        if copied {
            grow(scratch, bytes);
        } else {
            drop_last(scratch);
        }
    }
}

/// The record that was set out last has so many bytes more.
///
/// # Safety
/// `scratch` points into the map.
#[inline(always)]
unsafe fn grow(scratch: *mut Scratch, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let last = load!(scratch, last);
        let head = head_at(scratch, last);
        let captured = load!(head, captured) + bytes as u32;
        store!(head, captured, captured);
        store!(scratch, used, last + HEAD_BYTES as u64 + ((captured as u64 + 7) & !7));
    }
}

/// The record that was set out last is lost.
///
/// # Safety
/// `scratch` points into the map.
#[inline(always)]
unsafe fn drop_last(scratch: *mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe {
        let last = load!(scratch, last);
        let kind = load!(head_at(scratch, last), kind);
        seen(kind);
        count_lost(kind, Reason::ReadFault, 1);
        let kind = opaque(kind as u64);
        if kind < Kind::COUNT as u64 {
            let count = (&raw mut (*scratch).counts).cast::<u8>().add(kind as usize);
            count.write_volatile(count.read_volatile().wrapping_sub(1));
        }
        store!(scratch, used, last);
        store!(scratch, last, NO_RECORD);
    }
}

/// # Safety
/// `scratch` points into the map.
#[inline(always)]
unsafe fn head_at(scratch: *mut Scratch, at: u64) -> *mut Head {
    // SAFETY: the caller's promise; inside the array, and aligned as every record is.
    unsafe { (&raw mut (*scratch).records).cast::<u8>().add(at_most(at, BATCH_BYTES as u64) as usize).cast() }
}

/// Inside a payload; behind its start there is room for the largest.
///
/// # Safety
/// `scratch` points into the map.
#[inline(always)]
unsafe fn payload_at(scratch: *mut Scratch, at: u64) -> *mut u8 {
    const MOST: usize = RECORDS_BYTES - PAYLOAD_BYTES;
    // SAFETY: the caller's promise; inside the array.
    unsafe { (&raw mut (*scratch).records).cast::<u8>().add(at_most(at, MOST as u64) as usize) }
}

/// Lets the record that was set out last tell the end of a client's message too: that of its last field or, of a message without
/// one that is told, of the request's headers.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn ends_with(walk: Walk) -> bool {
    let Walk { endpoint, scratch } = walk;
    // SAFETY: the caller's promise.
    unsafe {
        let last = load!(scratch, last);
        if last == NO_RECORD {
            return false;
        }
        let head = head_at(scratch, last);
        let (kind, note) = (load!(head, kind), load!(head, note));
        let complete = kind == Kind::Field as u16 && note & field::COMPLETE != 0
            || kind == Kind::Headers as u16
                && note & (headers::FRAME_COMPLETE | headers::CONTINUATION) == headers::FRAME_COMPLETE;
        let fits = load!(head, end) == CLIENT && load!(head, stream) == load!(endpoint, stream) && complete;
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

/// Writes what is set out into the ring.
///
/// # Safety
/// `walk` points into the maps.
#[inline(never)]
pub unsafe fn flush(walk: Walk) {
    let scratch = walk.scratch;
    // SAFETY: the caller's promise; the bytes are inside the array.
    unsafe {
        let bytes = at_most(load!(scratch, used), RECORDS_BYTES as u64);
        if bytes == 0 {
            return;
        }
        let batches = load!(scratch, batches).wrapping_add(1);
        store!(scratch, batches, batches);
        let records = core::slice::from_raw_parts((&raw const (*scratch).records).cast::<u8>(), bytes as usize);
        // First, so that nobody finds more delivered than seen.
        count_batch::<false>(scratch);
        if !put(records, batches as u32) {
            count_batch::<true>(scratch);
        }
        let mut word = 0;
        while word < KIND_WORDS {
            (&raw mut (*scratch).counts).cast::<u64>().add(word).write_volatile(0);
            word += 1;
        }
        begin(scratch);
    }
}

/// Counts the records of a batch: as seen, or as lost for want of room.
///
/// # Safety
/// `scratch` points into the map.
#[inline(always)]
unsafe fn count_batch<const LOST: bool>(scratch: *mut Scratch) {
    let Some(counters) = counters() else { return };
    let mut word = 0;
    while word < KIND_WORDS {
        // SAFETY: inside the arrays, which have room for each kind.
        unsafe {
            let mut left = (&raw const (*scratch).counts).cast::<u64>().add(word).read_volatile();
            let mut kind = 8 * word;
            while kind < 8 * (word + 1) && kind < Kind::COUNT && left != 0 {
                let count = left & 0xff;
                if count != 0 && LOST {
                    count_lost(kind as u16, Reason::RingFull, count);
                } else if count != 0 {
                    add((&raw mut (*counters).seen).cast::<u64>().add(kind), count);
                }
                left >>= 8;
                kind += 1;
            }
        }
        word += 1;
    }
}
