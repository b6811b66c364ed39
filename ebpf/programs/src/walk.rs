//! Walking the HTTP/2 frames of what one end writes (RFC 9113 §4.1), wherever its writes cut them.
//!
//! One step of the loop takes the next segment, or a frame's header and what is there of its payload.
//!
//! Numbers pass from function to function through the map values. Read back they are unknown scalars to the verifier: the ways
//! through a function meet again behind it, and the cost of a step is the sum of its parts, not their product.

use spanlet_abi::event::{Kind, Reason, headers};
use spanlet_abi::layout::Action;
use spanlet_abi::limits::HEADER_BLOCK_BYTES;

use crate::batch;
use crate::connection;
use crate::emit;
use crate::frame::{FRAME_HEADER_BYTES, header_bytes, parse_bytes, plausible, proven, whole_header};
use crate::kernel::{at_most, copy_user, opaque, read_pair, read_user};
use crate::maps::{Endpoint, Mark, SCRATCH, Scratch, Track, load, store};
use crate::message;
use crate::streams;
use crate::turns;

/// The connection preface (RFC 9113 §3.4).
pub const PREFACE_BYTES: u32 = 24;
/// A frame type that none has: what is to be skipped.
pub const SKIPPED: u32 = 0xff;

const DATA: u32 = 0;
const HEADERS: u32 = 1;
const RST_STREAM: u32 = 3;
const SETTINGS: u32 = 4;
const GOAWAY: u32 = 7;
const CONTINUATION: u32 = 9;

const END_STREAM: u32 = 1;
/// On SETTINGS.
const ACK: u32 = 1;
const PADDED: u32 = 8;

/// RST_STREAM: an error code.
const RESET_BYTES: u64 = 4;
/// GOAWAY: the last stream, an error code.
const GOAWAY_BYTES: u64 = 8;
/// More than either has: their bytes could not be read.
const UNREADABLE: u32 = 9;

/// What a walk works on: whose write it is, and where its records are put together.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    pub endpoint: *mut Endpoint,
    pub scratch: *mut Scratch,
}

impl Walk {
    /// Each processor has a scratch.
    #[inline(always)]
    pub fn of(endpoint: *mut Endpoint) -> Option<Self> {
        Some(Self { endpoint, scratch: SCRATCH.get_ptr_mut(0)? })
    }
}

/// `bytes` more of the buffers of the endpoint's mark were accepted: walks them, if they can be followed.
///
/// `LOOP` says whether the kernel has `bpf_loop` (5.17 and newer), which needs no bound that the verifier counts.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn accepted<const LOOP: bool>(endpoint: *mut Endpoint, bytes: u64) {
    // SAFETY: the caller's promise.
    if unsafe { load!(mark_of(endpoint), action) } == Action::Unfollowed as u32 {
        return unfollowed(endpoint, bytes);
    }
    let Some(walk) = Walk::of(endpoint) else { return };
    let scratch = walk.scratch;
    // SAFETY: the caller's promise.
    unsafe {
        let mark = mark_of(endpoint);
        let written = load!(endpoint, written);
        store!(mark, remaining, bytes);
        store!(scratch, ahead_bytes, 0);
        batch::begin(scratch);
        if load!(endpoint, track) == Track::Unknown as u32 {
            if !proven(mark) {
                skip_write(endpoint, written, bytes);
                return;
            }
            store!(endpoint, track, Track::Sure as u32);
            store!(endpoint, left, 0);
            store!(endpoint, have, 0);
        }
        let done = if LOOP { turns::by_helper(walk) } else { turns::bounded(walk) };
        if load!(mark, remaining) != 0 {
            if !done {
                lose_track(walk, Reason::TooManyFrames);
            } else if load!(endpoint, track) == Track::Sure as u32 {
                lose_track(walk, Reason::ReadFault); // the buffers were not as long as said, or not to be found
            }
            skip_write(endpoint, written, bytes);
        }
        batch::flush(walk);
    }
}

/// `bytes` were written by a call whose buffers are not followed. Not of the processor's scratch: another program may be in a walk.
#[inline(always)]
pub fn unfollowed(endpoint: *mut Endpoint, bytes: u64) {
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, written, load!(endpoint, written).wrapping_add(bytes));
        store!(endpoint, track, Track::Unknown as u32);
    }
    emit::tell_lost_track(endpoint, Reason::Unfollowed);
}

/// The write that is walked.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn mark_of(endpoint: *mut Endpoint) -> *mut Mark {
    // SAFETY: the caller's promise.
    unsafe { &raw mut (*endpoint).mark }
}

/// Counts what is not walked. A cursor that stopped early no longer fits the bytes: it is dropped.
#[inline(always)]
unsafe fn skip_write(endpoint: *mut Endpoint, written: u64, bytes: u64) {
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(endpoint);
        store!(endpoint, written, written.wrapping_add(bytes));
        store!(endpoint, track, Track::Unknown as u32);
        store!(mark, end, 0);
        store!(mark, at, 0);
        store!(mark, segments_left, 0);
    }
}

/// From here on frame boundaries are unknown.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
unsafe fn lose_track(walk: Walk, reason: Reason) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(walk.endpoint, track, Track::Unknown as u32);
        batch::set_out(walk, Kind::LostTrack, connection::now_ns(), 0, reason as u32, 0);
    }
}

/// Moves the cursor on inside what is there.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn advance(endpoint: *mut Endpoint, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let mark = mark_of(endpoint);
        store!(mark, part, load!(mark, part).wrapping_sub(bytes));
        step_over(endpoint, bytes);
    }
}

/// Moves the cursor on; [`Mark::part`] is the caller's to set.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn step_over(endpoint: *mut Endpoint, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let mark = mark_of(endpoint);
        store!(mark, at, load!(mark, at).wrapping_add(bytes));
        store!(mark, remaining, load!(mark, remaining).wrapping_sub(bytes));
        store!(endpoint, written, load!(endpoint, written).wrapping_add(bytes));
    }
}

/// Moves the cursor on inside a frame's payload.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn take(endpoint: *mut Endpoint, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(endpoint, left, load!(endpoint, left).wrapping_sub(bytes as u32));
        advance(endpoint, bytes);
    }
}

/// The user address under the cursor.
///
/// # Safety
/// `mark` points into the map.
#[inline(always)]
pub unsafe fn address(mark: *mut Mark) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { load!(mark, buffer).wrapping_add(load!(mark, at)) }
}

/// One step; false when there is nothing left or no way on.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn step(walk: Walk) -> bool {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(endpoint);
        if load!(endpoint, unparsed) != 0 {
            measure(endpoint);
            message::feed(walk);
            data_ends(walk);
            return load!(mark, remaining) != 0 || load!(endpoint, unparsed) != 0;
        }
        if load!(mark, at) == load!(mark, end) {
            return load!(mark, remaining) != 0 && next_segment(mark);
        }
        if load!(endpoint, left) != 0 {
            measure(endpoint);
        } else if !frame_header(walk) {
            return false;
        }
        if load!(mark, part) != 0 || load!(endpoint, left) == 0 {
            payload(walk);
        }
        load!(mark, remaining) != 0 || load!(endpoint, unparsed) != 0
    }
}

/// Sets [`Mark::part`] inside a frame's payload.
#[inline(always)]
unsafe fn measure(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(endpoint);
        store!(mark, part, there(mark));
        clip(endpoint);
    }
}

/// Accepted bytes of the segment that are to be walked.
///
/// # Safety
/// `mark` points into the map.
#[inline(always)]
pub unsafe fn there(mark: *mut Mark) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let (rest, remaining) = (load!(mark, end).wrapping_sub(load!(mark, at)), load!(mark, remaining));
        if rest > remaining { remaining } else { rest }
    }
}

/// No more of a segment belongs to a frame than is left of that.
#[inline(always)]
unsafe fn clip(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(endpoint);
        let left = load!(endpoint, left) as u64;
        if load!(mark, part) > left {
            store!(mark, part, left);
        }
    }
}

/// Takes the next `struct iovec`.
///
/// # Safety
/// `mark` points into the map.
#[inline(never)]
pub unsafe fn next_segment(mark: *mut Mark) -> bool {
    // SAFETY: points into the map.
    unsafe {
        let left = load!(mark, segments_left);
        if left == 0 {
            return false;
        }
        let segment = load!(mark, segments);
        let vector =
            if load!(mark, segments_in_kernel) != 0 { read_pair(segment) } else { read_user::<[u64; 2]>(segment) };
        let Some([base, length]) = vector else {
            return false;
        };
        store!(mark, buffer, base);
        store!(mark, at, 0);
        store!(mark, end, length);
        store!(mark, segments, segment.wrapping_add(16));
        store!(mark, segments_left, left - 1);
        true
    }
}

/// Reads a frame's header, or the part of it that is there.
#[inline(always)]
unsafe fn frame_header(walk: Walk) -> bool {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        if !whole_header(walk) {
            store!(mark_of(endpoint), part, there(mark_of(endpoint)));
            if !header_bytes(endpoint) {
                lose_track(walk, Reason::ReadFault);
                return false;
            }
            if load!(endpoint, have) < FRAME_HEADER_BYTES as u32 {
                store!(endpoint, frame, SKIPPED);
                return true;
            }
            parse_bytes(endpoint);
            clip(endpoint);
        }
        if !plausible(endpoint) {
            lose_track(walk, Reason::NoFrame);
            return false;
        }
        if load!(endpoint, frame) == HEADERS && load!(endpoint, flags) & END_STREAM == 0 {
            streams::stream_begins(endpoint);
        }
        true
    }
}

/// Takes a part of the current frame's payload; of an empty one, nothing.
#[inline(always)]
unsafe fn payload(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(endpoint);
        match load!(endpoint, frame) {
            HEADERS | CONTINUATION | SETTINGS => fragment(walk),
            DATA => {
                if load!(endpoint, flags) & PADDED == 0 && load!(mark, part) != 0 {
                    message::feed(walk);
                } else {
                    take(endpoint, load!(mark, part));
                }
                data_ends(walk);
            }
            RST_STREAM | GOAWAY => tell_end(walk),
            _ => take(endpoint, load!(mark, part)),
        }
    }
}

/// Copies a part of a header block, or of a SETTINGS payload.
#[inline(always)]
unsafe fn fragment(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the maps.
    unsafe {
        let mark = mark_of(endpoint);
        let begins = load!(endpoint, left) == load!(endpoint, length);
        // CONTINUATION goes on with the block.
        if begins && load!(endpoint, frame) != CONTINUATION {
            store!(endpoint, copied, 0);
        }
        let room = (HEADER_BLOCK_BYTES as u32).saturating_sub(load!(endpoint, copied));
        let (from, bytes) = (address(mark), load!(mark, part));
        let captured = if bytes < room as u64 { bytes as u32 } else { room };
        store!(endpoint, copied, load!(endpoint, copied) + captured);
        take(endpoint, bytes);
        let begins = if begins { headers::FRAME_BEGINS } else { 0 };
        if load!(endpoint, frame) != SETTINGS {
            batch::set_out(walk, Kind::Headers, load!(mark, time_ns), bytes as u32, note_of(endpoint) | begins, 0);
        } else if load!(endpoint, flags) & ACK == 0 {
            batch::set_out(walk, Kind::Settings, load!(mark, time_ns), bytes as u32, note_of(endpoint) | begins, 0);
        } else {
            return;
        }
        batch::with_memory(walk, from, captured);
    }
}

#[inline(always)]
unsafe fn note_of(endpoint: *mut Endpoint) -> u32 {
    // SAFETY: points into the map.
    unsafe {
        let mut note = 0;
        if load!(endpoint, frame) == CONTINUATION {
            note |= headers::CONTINUATION;
        }
        if load!(endpoint, left) != 0 {
            return note;
        }
        note |= headers::FRAME_COMPLETE;
        if load!(endpoint, frame) == HEADERS && load!(endpoint, flags) & END_STREAM != 0 {
            connection::reaches_point(endpoint);
            if streams::stream_ends(endpoint) {
                note |= headers::AFTER_DATA;
            }
        }
        note
    }
}

/// If all of a DATA frame with END_STREAM was taken: tells its end, by the record of the message's field if that is still to be
/// written.
#[inline(always)]
unsafe fn data_ends(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        let ends = load!(endpoint, frame) == DATA && load!(endpoint, flags) & END_STREAM != 0;
        if !ends || load!(endpoint, left) != 0 || load!(endpoint, unparsed) != 0 {
            return;
        }
        if !batch::ends_with(walk) {
            batch::set_out(walk, Kind::DataEnd, load!(mark_of(endpoint), time_ns), 0, 0, 0);
        }
        connection::reaches_point(endpoint);
        streams::stream_ends(endpoint);
    }
}

/// RST_STREAM and GOAWAY, once their error code is there (RFC 9113 §6.4, §6.8): a write may cut them anywhere.
#[inline(never)]
unsafe fn tell_end(walk: Walk) {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        let goaway = load!(endpoint, frame) == GOAWAY;
        let need = if goaway { GOAWAY_BYTES } else { RESET_BYTES };
        if !end_bytes(endpoint, need) {
            return;
        }
        let known = load!(endpoint, have) as u64 == need;
        store!(endpoint, have, 0);
        store!(endpoint, frame, SKIPPED); // what follows is for people
        let header = (&raw const (*endpoint).header).cast::<u32>();
        let (first, second) = (u32::from_be(header.read_volatile()), u32::from_be(header.add(1).read_volatile()));
        let code = if goaway { second } else { first };
        if goaway {
            store!(endpoint, stream, if known { first } else { u32::MAX } & 0x7fff_ffff);
        } else {
            streams::stream_ends(endpoint);
        }
        let kind = if goaway { Kind::GoAway } else { Kind::Reset };
        batch::set_out(walk, kind, load!(mark_of(endpoint), time_ns), 0, if known { code } else { u32::MAX }, 0);
    }
}

/// Takes what is there of the first `need` bytes of a payload, at most 8, into the place of the frame's header; says whether
/// they are complete or the frame is over.
#[inline(never)]
unsafe fn end_bytes(endpoint: *mut Endpoint, need: u64) -> bool {
    // SAFETY: points into the map; `have + take` is at most 15 of the header's 16 bytes.
    unsafe {
        let mark = mark_of(endpoint);
        let have = opaque(load!(endpoint, have) as u64);
        if have > 7 {
            return true;
        }
        let part = load!(mark, part);
        let missing = need.saturating_sub(have);
        let wanted = if part < missing { part } else { missing };
        if wanted != 0 {
            // Clamped behind the test: merged with it the bound would be lost to the verifier of 5.10.
            let take_bytes = at_most(wanted, 8);
            let to = (&raw mut (*endpoint).header).cast::<u8>().add(have as usize);
            if !copy_user(to, take_bytes as u32, address(mark)) {
                store!(endpoint, have, UNREADABLE);
                return true;
            }
            store!(endpoint, have, (have + take_bytes) as u32);
            take(endpoint, take_bytes);
        }
        load!(endpoint, have) as u64 == need || load!(endpoint, left) == 0
    }
}
