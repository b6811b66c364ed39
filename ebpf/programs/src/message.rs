//! The first gRPC message of a stream, looked at while it passes: what may be copied of it is copied, nothing else.
//!
//! ```text
//! client: Prefix ─5 bytes─► Head ─field found─► Copy ─► Skip ─┬─► Head        (plugin sockets: next field)
//!                            └── compressed, or no such field ─┴─► Rest ─► After ─► Streaming
//! server: Prefix ─5 bytes─► Head ─64 bytes─► Id ──────────────────► Rest ─► After ─► Streaming
//! ```
//!
//! The privacy rule. Of a client's message that is not compressed: field 1 if it is a string (first byte ≥ 0x20); of a nested
//! message (first byte 0x0A) only its field 1; on DRA sockets a claim's fields 1 to 3; on plugin sockets also fields that begin
//! with `/`. Of a server's message on a CRI socket: field 1 if it is exactly 64 hexadecimal digits.

use spanlet_abi::event::{CLIENT, Kind, field};
use spanlet_abi::limits::{ID_BYTES, NESTED_BYTES, WINDOW_BYTES};

use crate::ahead;
use crate::connection;
use crate::emit;
use crate::kernel::{at_most, copy, opaque};
use crate::maps::{Endpoint, load, store};
use crate::plan::{byte, plan};
use crate::streams::{bring, message_of};
use crate::walk::{address, mark_of, take};

/// The length-prefixed message's prefix: a compressed flag and four bytes of length.
const PREFIX_BYTES: u32 = 5;
/// Tag and length of a field 1 with 64 bytes.
const ID_HEAD_BYTES: u32 = 2;
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
/// `endpoint` points into the map.
#[inline(never)]
pub unsafe fn feed(endpoint: *mut Endpoint) {
    // SAFETY: the caller's promise.
    unsafe {
        let message = message_of(endpoint);
        if load!(message, stream) != load!(endpoint, stream) && !bring(endpoint) {
            store!(endpoint, unparsed, 0);
            take(endpoint, load!(mark_of(endpoint), part));
            return;
        }
        if load!(message, stage) == stage::PREFIX {
            prefix(endpoint);
        }
        if load!(message, stage) == stage::HEAD {
            field_head(endpoint);
        }
        match load!(message, stage) {
            stage::PREFIX | stage::HEAD => {}
            stage::COPY => {
                if load!(mark_of(endpoint), part) != 0 {
                    copy_more(endpoint);
                }
            }
            stage::ID => id(endpoint),
            stage::SKIP | stage::REST => skip(endpoint),
            stage::AFTER => second_message(endpoint),
            _ => take(endpoint, load!(mark_of(endpoint), part)),
        }
        first_message_taken(endpoint);
    }
}

/// Takes bytes from the stream into the window until it holds `target` of them.
#[inline(never)]
unsafe fn fill(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map; `have` is below 64 and `want` at most 64 of the window's 128 bytes.
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
            if !window_bytes(endpoint, have, want) {
                store!(message, stage, stage::REST);
                return false;
            }
            take_of_message(endpoint, want);
            store!(message, have, load!(message, have) + want as u32);
        }
        load!(message, have) >= load!(message, target)
    }
}

/// Copies `want` bytes under the cursor, at most 64, into the window behind `have`, at most 63.
#[inline(always)]
unsafe fn window_bytes(endpoint: *mut Endpoint, have: u64, want: u64) -> bool {
    // SAFETY: points into the map; the window has room for both.
    unsafe {
        emit::flush_kernel_bytes(endpoint);
        let Some(from) = ahead::of_cursor(endpoint, want) else { return false };
        let to = (&raw mut (*endpoint).message.window).cast::<u8>();
        if have == 0 && want <= WINDOW_BYTES as u64 {
            // More than is wanted is copied and not counted.
            let to = to.cast::<u64>();
            to.write_volatile(ahead::word(from));
            to.add(1).write_volatile(ahead::word(from.add(8)));
            to.add(2).write_volatile(ahead::word(from.add(16)));
            return true;
        }
        copy(to.add(have as usize), want as u32, from as u64)
    }
}

#[inline(never)]
unsafe fn prefix(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        store!(message, target, PREFIX_BYTES);
        if !fill(endpoint) {
            return;
        }
        let length = u32::from_be_bytes([byte(message, 1), byte(message, 2), byte(message, 3), byte(message, 4)]);
        store!(message, left, length);
        store!(message, have, 0);
        let looked_at =
            byte(message, 0) == 0 && (load!(endpoint, end) == CLIENT as u32 || load!(endpoint, kind) == KIND_CRI);
        store!(message, stage, if looked_at { stage::HEAD } else { stage::REST });
    }
}

/// A field's tag, length and first byte.
#[inline(never)]
unsafe fn field_head(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        shift(endpoint);
        let server = load!(endpoint, end) != CLIENT as u32;
        let whole = load!(message, have).saturating_add(load!(message, left));
        let window = if server { ID_HEAD_BYTES } else { WINDOW_BYTES as u32 };
        store!(message, target, if whole < window { whole } else { window });
        if !fill(endpoint) {
            return;
        }
        if server {
            id_head(endpoint);
        } else if plan(endpoint) {
            begin_field(endpoint);
        } else {
            store!(message, stage, stage::REST);
        }
    }
}

/// Copies what is there of a field's content, and sets out what is to come.
#[inline(never)]
unsafe fn begin_field(endpoint: *mut Endpoint) {
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
            tell_field(endpoint);
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
#[inline(never)]
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
unsafe fn tell_field(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let (from_window, from_stream) = (load!(message, from_window), load!(message, from_stream));
        let length = load!(message, copy);
        let complete = if length == from_window + from_stream { field::COMPLETE } else { 0 };
        let note = load!(message, note) | field::BEGINS | complete;
        emit::set_out(endpoint, Kind::Field, load!(mark_of(endpoint), time_ns), length, note, load!(message, field));
        let window = (&raw const (*message).window) as u64;
        emit::with_kernel_bytes(endpoint, window.wrapping_add(load!(message, value) as u64), from_window);
        emit::with_user_bytes(endpoint, address(mark_of(endpoint)), from_stream);
    }
}

/// A field that a write cut: its next part.
#[inline(never)]
unsafe fn copy_more(endpoint: *mut Endpoint) {
    // SAFETY: points into the map; the length is clamped to the record's room.
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
        emit::set_out(endpoint, Kind::Field, load!(mark_of(endpoint), time_ns), part, note, load!(message, field));
        emit::with_user_bytes(endpoint, address(mark_of(endpoint)), part);
        take_of_message(endpoint, load!(message, from_stream) as u64);
        next_stage(endpoint);
    }
}

/// The stage after a part of a field.
#[inline(never)]
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

#[inline(never)]
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

/// A server's field 1 with 64 bytes may be an id.
#[inline(never)]
unsafe fn id_head(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let fits = load!(message, have) == ID_HEAD_BYTES
            && byte(message, 0) == FIELD_1
            && byte(message, 1) as usize == ID_BYTES;
        store!(message, have, 0);
        store!(message, stage, if fits && load!(message, left) >= ID_BYTES as u32 { stage::ID } else { stage::REST });
    }
}

#[inline(never)]
unsafe fn id(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        store!(message, target, ID_BYTES as u32);
        if !fill(endpoint) {
            return;
        }
        store!(message, stage, stage::REST);
        if !all_hexadecimal(endpoint) {
            return;
        }
        emit::set_out(
            endpoint,
            Kind::Field,
            load!(mark_of(endpoint), time_ns),
            ID_BYTES as u32,
            field::BEGINS | field::COMPLETE,
            1,
        );
        emit::with_kernel_bytes(endpoint, (&raw const (*message).window) as u64, ID_BYTES as u32);
    }
}

/// Eight digits at a time: a byte is a digit if it is in `0..=9` or in `a..=f`; none may have its high bit set.
#[inline(never)]
unsafe fn all_hexadecimal(endpoint: *mut Endpoint) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let (mut wrong, mut i) = (0u64, 0usize);
    while i < ID_BYTES / 8 {
        // SAFETY: inside the window, which is aligned to eight.
        let digits = unsafe { (&raw const (*endpoint).message.window).cast::<u64>().add(i).read_volatile() };
        // Adding up to the high bit compares each byte without a carry into the next, since none has its own high bit set.
        let low = digits & !HIGH;
        let from_0 = low + (0x80 - b'0' as u64) * ONES;
        let past_9 = low + (0x7f - b'9' as u64) * ONES;
        let from_a = low + (0x80 - b'a' as u64) * ONES;
        let past_f = low + (0x7f - b'f' as u64) * ONES;
        wrong |= digits | !((from_0 & !past_9) | (from_a & !past_f));
        i += 1;
    }
    wrong & HIGH == 0
}

/// Marks where the first message ended, once.
#[inline(never)]
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
unsafe fn second_message(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        store!(message, stage, stage::STREAMING);
        emit::set_out(endpoint, Kind::Streaming, load!(message, end_ns), 0, 0, 0);
        store!((&raw mut (*endpoint).head), offset, load!(message, end_offset));
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

/// Drops the window's bytes before `at`. They stay where they are until the next field is looked at: the record that is set
/// out has yet to be written from them.
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
#[inline(never)]
unsafe fn shift(endpoint: *mut Endpoint) {
    // SAFETY: both arrays have room for the window behind any start inside it.
    unsafe {
        let message = message_of(endpoint);
        let bytes = load!(message, behind);
        if bytes == 0 {
            return;
        }
        emit::flush_kernel_bytes(endpoint);
        store!(message, behind, 0);
        let from = (&raw const (*message).window) as u64 + at_most(bytes as u64, WINDOW_BYTES as u64);
        copy((&raw mut (*message).shifted).cast(), WINDOW_BYTES as u32, from);
        copy((&raw mut (*message).window).cast(), WINDOW_BYTES as u32, (&raw const (*message).shifted) as u64);
    }
}
