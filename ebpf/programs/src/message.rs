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
use spanlet_abi::limits::{ID_BYTES, MAX_FIELDS, NESTED_BYTES, STRING_BYTES, WINDOW_BYTES};

use crate::emit;
use crate::kernel::{at_most, copy, copy_user, opaque};
use crate::maps::{EMPTY_MESSAGE, Endpoint, Mark, Message, STREAMS, StreamKey, WINDOW, load, store};
use crate::walk::{address, advance, head};

/// The length-prefixed message's prefix: a compressed flag and four bytes of length.
const PREFIX_BYTES: u32 = 5;
/// Tag and length of a field 1 with 64 bytes.
const ID_HEAD_BYTES: u32 = 2;
const FIELD_1: u8 = 0x0a;

const KIND_CRI: u32 = 1;
const KIND_DRA: u32 = 3;

/// Room for a field in a record: what the window holds of it, and what is read behind that.
const FIELD_ROOM: usize = WINDOW_BYTES + NESTED_BYTES;

mod stage {
    pub const PREFIX: u32 = 0;
    pub const HEAD: u32 = 1;
    pub const COPY: u32 = 2;
    pub const SKIP: u32 = 3;
    pub const ID: u32 = 4;
    pub const REST: u32 = 5;
    pub const AFTER: u32 = 6;
    pub const STREAMING: u32 = 7;
}

/// What to do with a field.
struct Plan {
    /// Bytes of tags and lengths before its content.
    head: u64,
    copy: u64,
    skip: u64,
    number: u32,
    note: u32,
}

/// HEADERS without END_STREAM: a message will follow.
///
/// # Safety
/// Both point into their maps.
#[inline(never)]
pub unsafe fn stream_begins(endpoint: *mut Endpoint, _mark: *mut Mark) {
    // SAFETY: the caller's promise.
    let key = unsafe { key(endpoint) };
    let _ = STREAMS.insert(key, EMPTY_MESSAGE, 0);
}

/// END_STREAM: says whether a message came before.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(never)]
pub unsafe fn stream_ends(endpoint: *mut Endpoint) -> bool {
    // SAFETY: the caller's promise.
    let key = unsafe { key(endpoint) };
    let Some(message) = STREAMS.get_ptr_mut(&key) else { return false };
    // SAFETY: points into the map.
    let any = unsafe { load!(message, stage) } != stage::PREFIX;
    let _ = STREAMS.remove(&key);
    any
}

#[inline(always)]
unsafe fn key(endpoint: *mut Endpoint) -> StreamKey {
    // SAFETY: points into the map.
    unsafe { StreamKey { sk: load!(endpoint, sk), stream: load!(endpoint, stream), zero: 0 } }
}

/// Looks at up to `bytes` of a DATA frame's payload under the cursor and moves it on; returns how many were taken.
///
/// # Safety
/// Both point into their maps.
#[inline(always)]
pub unsafe fn feed(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let key = key(endpoint);
        let Some(message) = STREAMS.get_ptr_mut(&key) else {
            store!(endpoint, unparsed, 0);
            advance(endpoint, mark, bytes);
            return bytes;
        };
        let before = load!(endpoint, written);
        match load!(message, stage) {
            stage::PREFIX => prefix(endpoint, mark, message, bytes),
            stage::HEAD => field_head(endpoint, mark, message, bytes),
            stage::COPY => copy_more(endpoint, mark, message, bytes),
            stage::ID => id(endpoint, mark, message, bytes),
            stage::SKIP | stage::REST => skip(endpoint, mark, message, bytes),
            stage::AFTER => second_message(endpoint, mark, message, bytes),
            _ => advance(endpoint, mark, bytes),
        }
        first_message_taken(endpoint, mark, message);
        load!(endpoint, written).wrapping_sub(before)
    }
}

/// Takes bytes from the stream into the window until it holds `target` of them.
#[inline(always)]
unsafe fn fill(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64, target: u64) -> bool {
    // SAFETY: all point into their maps; `have` is below 64 and `take` at most 64 of the window's 128 bytes.
    unsafe {
        let have = opaque(load!(message, have) as u64);
        if have >= ID_BYTES as u64 {
            return have >= target;
        }
        let want = target.saturating_sub(have);
        let take = at_most(if want < bytes { want } else { bytes }, ID_BYTES as u64);
        if take != 0 {
            let to = (&raw mut (*message).window).cast::<u8>().add(have as usize);
            if !copy_user(to, take as u32, address(mark)) {
                store!(message, stage, stage::REST);
                return false;
            }
            advance(endpoint, mark, take);
            store!(message, have, (have + take) as u32);
        }
        have + take >= target
    }
}

#[inline(never)]
unsafe fn prefix(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps.
    unsafe {
        if !fill(endpoint, mark, message, bytes, PREFIX_BYTES as u64) {
            return;
        }
        let w = (&raw const (*message).window).cast::<u8>();
        let length = u32::from_be_bytes([w.add(1).read(), w.add(2).read(), w.add(3).read(), w.add(4).read()]);
        store!(message, left, length);
        store!(message, have, 0);
        let looked_at = w.read() == 0 && (load!(endpoint, end) == CLIENT as u32 || load!(endpoint, kind) == KIND_CRI);
        store!(message, stage, if looked_at { stage::HEAD } else { stage::REST });
    }
}

/// A field's tag, length and first byte.
#[inline(never)]
unsafe fn field_head(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps.
    unsafe {
        let server = load!(endpoint, end) != CLIENT as u32;
        let whole = load!(message, have) as u64 + load!(message, left) as u64;
        let window = if server { ID_HEAD_BYTES as u64 } else { WINDOW_BYTES as u64 };
        let target = if whole < window { whole } else { window };
        let bytes = at_most_left(message, bytes);
        let before = load!(mark, at);
        let full = fill(endpoint, mark, message, bytes, target);
        let taken = load!(mark, at).wrapping_sub(before);
        store!(message, left, load!(message, left).saturating_sub(taken as u32));
        if !full {
            return;
        }
        if server {
            id_head(message);
            return;
        }
        match plan(endpoint, message) {
            Some(plan) => begin_field(endpoint, mark, message, bytes - at_most(taken, bytes), &plan),
            None => store!(message, stage, stage::REST),
        }
    }
}

/// Decides by a field's first bytes what is copied of it; none: nothing more of this message.
#[inline(always)]
unsafe fn plan(endpoint: *mut Endpoint, message: *mut Message) -> Option<Plan> {
    // SAFETY: all point into their maps; `byte` stays within the window.
    unsafe {
        let kind = load!(endpoint, kind);
        let w = (&raw const (*message).window).cast::<u8>();
        let fields = load!(message, fields) + 1;
        store!(message, fields, fields);
        if load!(message, have) == 0 || fields > MAX_FIELDS {
            return None;
        }
        let low = w.read();
        let (tag, at) = if low < 0x80 { (low as u32, 1) } else { ((low & 0x7f) as u32 | (w.add(1).read() as u32) << 7, 2) };
        let number = tag >> 3;
        if kind == KIND_CRI && number != 1 {
            return None;
        }
        match tag & 7 {
            2 => {}
            0 => return varint_end(w, at).map(|head| Plan { head, copy: 0, skip: 0, number, note: 0 }),
            1 => return Some(Plan { head: at, copy: 0, skip: 8, number, note: 0 }),
            5 => return Some(Plan { head: at, copy: 0, skip: 4, number, note: 0 }),
            _ => return None,
        }
        let (length, at) = varint(w, at)?;
        let first = byte(w, at);
        if length == 0 {
            return Some(Plan { head: at, copy: 0, skip: 0, number, note: 0 });
        }
        let text = first >= 0x20;
        if number == 1 && first == FIELD_1 {
            if kind == KIND_DRA {
                // A claim: its fields are looked at as they come.
                return Some(Plan { head: at, copy: 0, skip: 0, number, note: 0 });
            }
            let (inner, content) = varint(w, at + 1)?;
            let copy = if inner < NESTED_BYTES as u64 { inner } else { NESTED_BYTES as u64 };
            let taken = content - at;
            if taken + inner > length {
                return None;
            }
            return Some(Plan { head: content, copy, skip: length - taken - copy, number, note: field::NESTED | cut(copy < inner) });
        }
        let wanted = match kind {
            KIND_CRI => text,
            KIND_DRA => text && number <= 3,
            _ => text && number == 1 || first == b'/',
        };
        if !wanted {
            return Some(Plan { head: at, copy: 0, skip: length, number, note: 0 });
        }
        let copy = if length < STRING_BYTES as u64 { length } else { STRING_BYTES as u64 };
        Some(Plan { head: at, copy, skip: length - copy, number, note: cut(copy < length) })
    }
}

#[inline(always)]
fn cut(cut: bool) -> u32 {
    if cut { field::CUT } else { 0 }
}

/// The window's byte at `at`.
///
/// # Safety
/// `w` is a window.
#[inline(always)]
unsafe fn byte(w: *const u8, at: u64) -> u8 {
    let at = at_most(at, WINDOW as u64 - 1);
    // SAFETY: inside the window.
    unsafe { core::ptr::read_volatile(w.add(at as usize)) }
}

/// A length of at most four bytes (2^28), and where it ends.
///
/// # Safety
/// `w` is a window.
#[inline(always)]
unsafe fn varint(w: *const u8, at: u64) -> Option<(u64, u64)> {
    // SAFETY: the caller's promise.
    unsafe {
        let b = byte(w, at) as u64;
        if b < 0x80 {
            return Some((b, at + 1));
        }
        let c = byte(w, at + 1) as u64;
        if c < 0x80 {
            return Some((b & 0x7f | c << 7, at + 2));
        }
        let d = byte(w, at + 2) as u64;
        if d < 0x80 {
            return Some((b & 0x7f | (c & 0x7f) << 7 | d << 14, at + 3));
        }
        let e = byte(w, at + 3) as u64;
        if e < 0x80 { Some((b & 0x7f | (c & 0x7f) << 7 | (d & 0x7f) << 14 | e << 21, at + 4)) } else { None }
    }
}

/// Where a number field ends.
///
/// # Safety
/// `w` is a window.
#[inline(always)]
unsafe fn varint_end(w: *const u8, at: u64) -> Option<u64> {
    let mut i = 0u64;
    while i < 10 {
        // SAFETY: the caller's promise.
        if unsafe { byte(w, at + i) } < 0x80 {
            return Some(at + i + 1);
        }
        i += 1;
    }
    None
}

/// Copies what is there of a field's content, and sets out what is to come.
#[inline(never)]
unsafe fn begin_field(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64, plan: &Plan) {
    // SAFETY: all point into their maps; lengths are clamped to the record's room.
    unsafe {
        let have = load!(message, have) as u64;
        if plan.head > have {
            store!(message, stage, stage::REST);
            return;
        }
        let rest = at_most(have - plan.head, WINDOW_BYTES as u64);
        let from_window = if plan.copy < rest { plan.copy } else { rest };
        let dropped = if plan.skip < rest - from_window { plan.skip } else { rest - from_window };
        store!(message, field, plan.number);
        store!(message, skip, (plan.skip - dropped) as u32);
        let ahead = plan.copy - from_window;
        let from_stream = if ahead < bytes { ahead } else { bytes };
        store!(message, copy, (ahead - from_stream) as u32);
        store!(message, note, plan.note & !field::BEGINS);
        if plan.copy != 0 {
            tell_field(endpoint, mark, message, plan, from_window, from_stream);
            take(endpoint, mark, message, from_stream);
        }
        shift(message, plan.head + from_window + dropped);
        next_stage(endpoint, message);
    }
}

/// Writes the record of a field's first part.
#[inline(always)]
unsafe fn tell_field(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, plan: &Plan, from_window: u64, from_stream: u64) {
    // SAFETY: all point into their maps; lengths are clamped to the record's room.
    unsafe {
        let mut head = head(endpoint, mark, Kind::Field);
        head.field = plan.number;
        head.length = (plan.copy) as u32;
        head.captured = (from_window + from_stream) as u32;
        head.note = plan.note | field::BEGINS | if load!(message, copy) == 0 { field::COMPLETE } else { 0 };
        let from = address(mark);
        let window = (&raw const (*message).window) as u64;
        emit::record::<FIELD_ROOM>(endpoint, head, |data| {
            let start = at_most(from_window, WINDOW_BYTES as u64);
            let skipped = at_most(plan.head, WINDOW_BYTES as u64);
            copy(data, start as u32, window.wrapping_add(skipped))
                && copy_user(data.add(start as usize), at_most(from_stream, NESTED_BYTES as u64) as u32, from)
        });
    }
}

/// A field that a write cut: its next part.
#[inline(never)]
unsafe fn copy_more(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps; the length is clamped to the record's room.
    unsafe {
        let bytes = at_most_left(message, bytes);
        let copy = load!(message, copy) as u64;
        let part = at_most(if copy < bytes { copy } else { bytes }, NESTED_BYTES as u64);
        store!(message, copy, (copy - part) as u32);
        let mut head = head(endpoint, mark, Kind::Field);
        head.field = load!(message, field);
        head.length = part as u32;
        head.captured = part as u32;
        head.note = load!(message, note) | if copy == part { field::COMPLETE } else { 0 };
        let from = address(mark);
        emit::record::<FIELD_ROOM>(endpoint, head, |data| copy_user(data, at_most(part, NESTED_BYTES as u64) as u32, from));
        take(endpoint, mark, message, part);
        next_stage(endpoint, message);
    }
}

/// The stage after a part of a field.
#[inline(always)]
unsafe fn next_stage(endpoint: *mut Endpoint, message: *mut Message) {
    // SAFETY: all point into their maps.
    unsafe {
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
unsafe fn skip(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps.
    unsafe {
        let bytes = at_most_left(message, bytes);
        if load!(message, stage) == stage::REST {
            take(endpoint, mark, message, bytes);
            return;
        }
        let skip = load!(message, skip) as u64;
        let part = if skip < bytes { skip } else { bytes };
        take(endpoint, mark, message, part);
        store!(message, skip, (skip - part) as u32);
        if skip == part {
            store!(message, stage, stage::HEAD);
        }
    }
}

/// A server's field 1 with 64 bytes may be an id.
#[inline(always)]
unsafe fn id_head(message: *mut Message) {
    // SAFETY: points into the map.
    unsafe {
        let w = (&raw const (*message).window).cast::<u8>();
        let fits = load!(message, have) == ID_HEAD_BYTES && w.read() == FIELD_1 && w.add(1).read() as usize == ID_BYTES;
        store!(message, have, 0);
        store!(message, stage, if fits && load!(message, left) >= ID_BYTES as u32 { stage::ID } else { stage::REST });
    }
}

#[inline(never)]
unsafe fn id(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps.
    unsafe {
        let bytes = at_most_left(message, bytes);
        let before = load!(mark, at);
        let full = fill(endpoint, mark, message, bytes, ID_BYTES as u64);
        let taken = load!(mark, at).wrapping_sub(before);
        store!(message, left, load!(message, left).saturating_sub(taken as u32));
        if !full {
            return;
        }
        store!(message, stage, stage::REST);
        if !all_hexadecimal(message) {
            return;
        }
        let mut head = head(endpoint, mark, Kind::Field);
        head.field = 1;
        head.length = ID_BYTES as u32;
        head.captured = ID_BYTES as u32;
        head.note = field::BEGINS | field::COMPLETE;
        let window = (&raw const (*message).window) as u64;
        emit::record::<ID_BYTES>(endpoint, head, |data| copy(data, ID_BYTES as u32, window));
    }
}

#[inline(always)]
unsafe fn all_hexadecimal(message: *mut Message) -> bool {
    let mut i = 0usize;
    while i < ID_BYTES {
        // SAFETY: inside the window.
        let digit = unsafe { (&raw const (*message).window).cast::<u8>().add(i).read() };
        if !matches!(digit, b'0'..=b'9' | b'a'..=b'f') {
            return false;
        }
        i += 1;
    }
    true
}

/// Marks where the first message ended, once.
#[inline(always)]
unsafe fn first_message_taken(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message) {
    // SAFETY: all point into their maps.
    unsafe {
        let stage = load!(message, stage);
        let complete = stage != stage::PREFIX && stage < stage::AFTER && load!(message, left) == 0;
        if !complete {
            store!(endpoint, unparsed, 0);
            return;
        }
        if load!(message, end_ns) == 0 {
            store!(message, end_offset, load!(endpoint, written));
            store!(message, end_ns, load!(mark, time_ns));
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
unsafe fn second_message(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps.
    unsafe {
        store!(message, stage, stage::STREAMING);
        let mut head = head(endpoint, mark, Kind::Streaming);
        head.offset = load!(message, end_offset);
        head.time_ns = load!(message, end_ns);
        emit::record::<0>(endpoint, head, |_| true);
        advance(endpoint, mark, bytes);
    }
}

/// Bytes of this message among `bytes`.
#[inline(always)]
unsafe fn at_most_left(message: *mut Message, bytes: u64) -> u64 {
    // SAFETY: points into the map.
    let left = unsafe { load!(message, left) } as u64;
    if left < bytes { left } else { bytes }
}

/// Takes bytes of the message from the stream.
#[inline(always)]
unsafe fn take(endpoint: *mut Endpoint, mark: *mut Mark, message: *mut Message, bytes: u64) {
    // SAFETY: all point into their maps.
    unsafe {
        advance(endpoint, mark, bytes);
        store!(message, left, load!(message, left).saturating_sub(bytes as u32));
    }
}

/// Drops the window's first `bytes`.
#[inline(always)]
unsafe fn shift(message: *mut Message, bytes: u64) {
    // SAFETY: both arrays have room for the window behind any start inside it.
    unsafe {
        let have = load!(message, have) as u64;
        if bytes >= have {
            store!(message, have, 0);
            return;
        }
        let from = (&raw const (*message).window) as u64 + at_most(bytes, WINDOW_BYTES as u64);
        copy((&raw mut (*message).shifted).cast(), WINDOW_BYTES as u32, from);
        copy((&raw mut (*message).window).cast(), WINDOW_BYTES as u32, (&raw const (*message).shifted) as u64);
        store!(message, have, (have - bytes) as u32);
    }
}
