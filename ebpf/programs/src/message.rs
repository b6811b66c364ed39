//! The first gRPC message of a stream, looked at while it passes: what may be copied of it is copied, nothing else.
//!
//! ```text
//! client: Prefix ─5 bytes─► Head ─field found─► Copy ─► Skip ─┬─► Head        (plugin sockets: next field)
//!                            └── compressed, or no such field ─┴─► Rest ─► After ─► Streaming
//! server: Prefix ─5 bytes─► Head ─64 bytes─► Id ──────────────────► Rest ─► After ─► Streaming
//! CRI:    Prefix ─all of it in one piece (`whole`)──────────────────────────► After
//! ```
//!
//! The privacy rule. Of a client's message that is not compressed: field 1 if it is a string (first byte ≥ 0x20); of a nested
//! message (first byte 0x0A) only its field 1; on DRA sockets a claim's fields 1 to 3; on plugin sockets also fields that begin
//! with `/`. Of a server's message on a CRI socket: field 1 if it is exactly 64 hexadecimal digits.

use spanlet_abi::event::{CLIENT, Kind, field};
use spanlet_abi::limits::{ID_BYTES, NESTED_BYTES, WINDOW_BYTES};

use crate::ahead::{self, word};
use crate::batch;
use crate::connection;
use crate::id;
use crate::kernel::{at_most, copy, opaque};
use crate::maps::{Endpoint, Message, load, store};
use crate::plan::plan;
use crate::streams::{bring, message_of};
use crate::walk::{Walk, address, mark_of, take};
use crate::whole;

/// The length-prefixed message's prefix: a compressed flag and four bytes of length.
pub const PREFIX_BYTES: u32 = 5;
pub const FIELD_1: u8 = 0x0a;

pub const KIND_CRI: u32 = 1;
pub const KIND_CSI: u32 = 2;
pub const KIND_DRA: u32 = 3;

pub mod stage {
    pub const PREFIX: u32 = 0;
    pub const HEAD: u32 = 1;
    pub const COPY: u32 = 2;
    pub const SKIP: u32 = 3;
    pub const ID: u32 = 4;
    pub const REST: u32 = 5;
    pub const AFTER: u32 = 6;
    pub const STREAMING: u32 = 7;
}

/// Looks at the part of a DATA frame's payload under the cursor and takes of it what this stage of the message can use.
///
/// # Safety
/// `walk` points into the maps.
#[inline(never)]
pub unsafe fn feed(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: the caller's promise.
    unsafe {
        let message = message_of(endpoint);
        if load!(message, stream) != load!(endpoint, stream) && !bring(endpoint) {
            store!(endpoint, unparsed, 0);
            take(endpoint, load!(mark_of(endpoint), part));
            return;
        }
        if load!(message, stage) == stage::PREFIX {
            if whole::message(walk) {
                return;
            }
            prefix(walk);
        }
        if load!(message, stage) == stage::HEAD {
            if load!(endpoint, end) == CLIENT as u32 {
                field_head(walk);
            } else {
                id::head(walk);
            }
        }
        match load!(message, stage) {
            stage::PREFIX | stage::HEAD => {}
            stage::COPY => {
                if load!(mark_of(endpoint), part) != 0 {
                    copy_more(walk);
                }
            }
            stage::ID => id::id(walk),
            stage::SKIP | stage::REST => skip(endpoint),
            stage::AFTER => second_message(walk),
            _ => take(endpoint, load!(mark_of(endpoint), part)),
        }
        first_message_taken(endpoint);
    }
}

/// Takes bytes from the stream into the window until it holds `target` of them.
///
/// # Safety
/// `walk` points into the maps.
#[inline(never)]
pub unsafe fn fill(walk: Walk) -> bool {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map; `have` is below 64 and `want` at most 64 of the window's 136 bytes.
    unsafe {
        let message = message_of(endpoint);
        let have = opaque(load!(message, have) as u64);
        if have >= ID_BYTES as u64 {
            return have >= load!(message, target) as u64;
        }
        let part = load!(mark_of(endpoint), part);
        let mut want = (load!(message, target) as u64).saturating_sub(have);
        if want > part {
            want = part;
        }
        let want = at_most(want, ID_BYTES as u64);
        if want != 0 {
            let Some(from) = ahead::of_cursor(walk, want) else {
                store!(message, stage, stage::REST);
                return false;
            };
            window_bytes(message, have, from, want);
            take_of_message(endpoint, want);
            store!(message, have, load!(message, have) + want as u32);
        }
        load!(message, have) >= load!(message, target)
    }
}

/// Copies `want` bytes, at most 64, into the window behind `have`, at most 63.
#[inline(always)]
unsafe fn window_bytes(message: *mut Message, have: u64, from: *const u8, want: u64) {
    // SAFETY: points into the map; the window has room for both.
    unsafe {
        let to = (&raw mut (*message).window).cast::<u8>();
        if have == 0 && want <= WINDOW_BYTES as u64 {
            window_words(message, from);
        } else {
            copy(to.add(have as usize), want as u32, from as u64);
        }
    }
}

/// Copies [`WINDOW_BYTES`] to the window's start, be they wanted or not.
#[inline(always)]
unsafe fn window_words(message: *mut Message, from: *const u8) {
    const { assert!(WINDOW_BYTES == 24) };
    // SAFETY: points into the map; both have room for three words.
    unsafe {
        let to = (&raw mut (*message).window).cast::<u64>();
        let words = [word(from), word(from.add(8)), word(from.add(16))];
        to.write_volatile(words[0]);
        to.add(1).write_volatile(words[1]);
        to.add(2).write_volatile(words[2]);
    }
}

/// A compressed flag and the message's length.
#[inline(always)]
unsafe fn prefix(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map; a word from a window's start lies inside it.
    unsafe {
        let message = message_of(endpoint);
        store!(message, target, PREFIX_BYTES);
        if !fill(walk) {
            return;
        }
        store!(message, have, 0);
        let word = word((&raw const (*message).window).cast());
        store!(message, left, u32::from_be((word >> 8) as u32));
        let looked_at = word as u8 == 0 && (load!(endpoint, end) == CLIENT as u32 || load!(endpoint, kind) == KIND_CRI);
        store!(message, stage, if looked_at { stage::HEAD } else { stage::REST });
    }
}

/// A field's tag, length and first byte.
#[inline(always)]
unsafe fn field_head(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        shift(endpoint);
        let have = load!(message, have);
        let whole = have.saturating_add(load!(message, left));
        let target = if whole < WINDOW_BYTES as u32 { whole } else { WINDOW_BYTES as u32 };
        store!(message, target, target);
        if !fill(walk) {
            return;
        }
        if plan(endpoint) {
            begin_field(walk);
        } else {
            store!(message, stage, stage::REST);
        }
    }
}

/// Copies what is there of a field's content, in the window and under the cursor, and sets out what is to come.
#[inline(never)]
unsafe fn begin_field(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map; lengths are clamped to the record's room.
    unsafe {
        let message = message_of(endpoint);
        let (have, start) = (load!(message, have), load!(message, at));
        let there = have.saturating_sub(start).saturating_add(load!(message, left));
        // A field that goes beyond its message is none.
        if start > have || load!(message, copy).saturating_add(load!(message, skip)) > there {
            store!(message, stage, stage::REST);
            return;
        }
        divide(endpoint);
        if load!(message, copy) != 0 {
            tell_field(walk);
            take_of_message(endpoint, load!(message, from_stream) as u64);
            let told = load!(message, from_window) + load!(message, from_stream);
            store!(message, copy, load!(message, copy).saturating_sub(told));
        }
        drop_taken(endpoint);
        next_stage(endpoint);
    }
}

/// How much of the field's content stands in the window, to copy and to skip, and how much to copy under the cursor; `at` is
/// moved to where the window's next field begins, `value` keeps where the content did.
#[inline(always)]
unsafe fn divide(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let start = load!(message, at);
        let (rest, copy, skip) =
            (load!(message, have).saturating_sub(start), load!(message, copy), load!(message, skip));
        let from_window = if copy < rest { copy } else { rest };
        let dropped = if skip < rest - from_window { skip } else { rest - from_window };
        let (ahead, part) = ((copy - from_window) as u64, load!(mark_of(endpoint), part));
        store!(message, from_window, from_window);
        store!(message, from_stream, if ahead < part { ahead as u32 } else { part as u32 });
        store!(message, skip, skip - dropped);
        store!(message, value, start);
        store!(message, at, start + from_window + dropped);
    }
}

/// Sets out the record of a field's first part: what the window holds of it, then what stands under the cursor.
#[inline(always)]
unsafe fn tell_field(walk: Walk) {
    let Walk { endpoint, scratch } = walk;
    // SAFETY: points into the maps.
    unsafe {
        let message = message_of(endpoint);
        let (from_window, from_stream) = (load!(message, from_window), load!(message, from_stream));
        let length = load!(message, copy);
        let complete = if length == from_window + from_stream { field::COMPLETE } else { 0 };
        let note = load!(message, note) | field::BEGINS | complete;
        batch::set_out(walk, Kind::Field, load!(mark_of(endpoint), time_ns), length, note, load!(message, field));
        let window = (&raw const (*message).window).cast::<u8>();
        let window = window.add(at_most(load!(message, value) as u64, WINDOW_BYTES as u64) as usize);
        batch::with_words(scratch, window, from_window);
        batch::with_memory(walk, address(mark_of(endpoint)), from_stream);
    }
}

/// A field that a write cut: its next part.
#[inline(never)]
unsafe fn copy_more(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the maps; the length is clamped to the record's room.
    unsafe {
        let message = message_of(endpoint);
        let (copy, bytes) = (load!(message, copy), load!(mark_of(endpoint), part));
        let mut part = if (copy as u64) < bytes { copy } else { bytes as u32 };
        if part > NESTED_BYTES as u32 {
            part = NESTED_BYTES as u32;
        }
        store!(message, from_stream, part);
        store!(message, copy, copy - part);
        let note = load!(message, note) | if copy == part { field::COMPLETE } else { 0 };
        batch::set_out(walk, Kind::Field, load!(mark_of(endpoint), time_ns), part, note, load!(message, field));
        batch::with_memory(walk, address(mark_of(endpoint)), part);
        take_of_message(endpoint, load!(message, from_stream) as u64);
        next_stage(endpoint);
    }
}

/// The stage after a part of a field.
#[inline(always)]
unsafe fn next_stage(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let next = if load!(message, copy) != 0 {
            stage::COPY
        } else if load!(endpoint, kind) == KIND_CRI {
            stage::REST
        } else if load!(message, skip) != 0 {
            stage::SKIP
        } else {
            stage::HEAD
        };
        store!(message, stage, next);
    }
}

#[inline(always)]
unsafe fn skip(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let rest = load!(message, stage) == stage::REST;
        let most = if rest { load!(message, left) } else { load!(message, skip) } as u64;
        let part = load!(mark_of(endpoint), part);
        let bytes = if most < part { most } else { part };
        take_of_message(endpoint, bytes);
        if !rest {
            store!(message, skip, (most - bytes) as u32);
            if most == bytes {
                store!(message, stage, stage::HEAD);
            }
        }
    }
}

/// Marks where the first message ended, once.
#[inline(always)]
unsafe fn first_message_taken(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let stage = load!(message, stage);
        let complete = stage != stage::PREFIX && stage < stage::AFTER && load!(message, left) == 0;
        if !complete {
            store!(endpoint, unparsed, 0);
            return;
        }
        if load!(message, end_ns) == 0 {
            store!(message, end_offset, load!(endpoint, written));
            store!(message, end_ns, load!(mark_of(endpoint), time_ns));
            connection::reaches_point(endpoint);
        }
        let fields_left = stage == stage::HEAD && load!(endpoint, end) == CLIENT as u32 && load!(message, have) != 0;
        store!(endpoint, unparsed, fields_left as u32);
        if !fields_left {
            store!(message, stage, stage::AFTER);
        }
    }
}

/// More bytes after the first message: a streaming call.
#[inline(never)]
unsafe fn second_message(walk: Walk) {
    let Walk { endpoint, scratch } = walk;
    // SAFETY: points into the maps.
    unsafe {
        let message = message_of(endpoint);
        store!(message, stage, stage::STREAMING);
        batch::set_out(walk, Kind::Streaming, load!(message, end_ns), 0, 0, 0);
        batch::at_offset(scratch, load!(message, end_offset));
        take(endpoint, load!(mark_of(endpoint), part));
    }
}

/// Takes bytes of the message from the stream.
#[inline(always)]
unsafe fn take_of_message(endpoint: *mut Endpoint, bytes: u64) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        take(endpoint, bytes);
        store!(message, left, load!(message, left).saturating_sub(bytes as u32));
    }
}

/// Drops the window's bytes before `at`; they stay where they are until the next field is looked at.
#[inline(always)]
unsafe fn drop_taken(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let (have, bytes) = (load!(message, have), load!(message, at));
        let kept = have.saturating_sub(bytes);
        store!(message, have, kept);
        store!(message, behind, if kept != 0 { bytes } else { 0 });
    }
}

/// Moves what is left in the window to its start.
#[inline(always)]
unsafe fn shift(endpoint: *mut Endpoint) {
    // SAFETY: the window has room for three words behind any start inside it.
    unsafe {
        let message = message_of(endpoint);
        let bytes = load!(message, behind);
        if bytes == 0 {
            return;
        }
        store!(message, behind, 0);
        let window = (&raw const (*message).window).cast::<u8>();
        window_words(message, window.add(at_most(bytes as u64, WINDOW_BYTES as u64) as usize));
    }
}
