//! Walking the HTTP/2 frames of what one end writes (RFC 9113 §4.1), wherever its writes cut them.
//!
//! One step of the loop does one thing: take the next segment, read a frame's header, or take a part of its payload.

use spanlet_abi::event::{Head, Kind, Reason, headers};
use spanlet_abi::limits::{HEADER_BLOCK_BYTES, MAX_FRAME_BYTES, MAX_STEPS, PROOF_FRAMES, SMALL_HEADER_BYTES};

use crate::emit;
use crate::kernel::{at_most, copy_user, opaque, read, read_user};
use crate::maps::{Endpoint, Mark, STREAMS, StreamKey, Track, load, store};
use crate::message;

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
/// The highest registered type, PRIORITY_UPDATE (RFC 9218 §7.1).
const HIGHEST_TYPE: u32 = 0x10;

const END_STREAM: u32 = 1;
/// On SETTINGS.
const ACK: u32 = 1;
const PADDED: u32 = 8;

const FRAME_HEADER_BYTES: u64 = 9;

/// `bytes` more of the mark's buffers were accepted: walks them.
///
/// # Safety
/// Both point into their maps.
#[inline(always)]
pub unsafe fn accepted(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let written = load!(endpoint, written);
        store!(mark, remaining, bytes);
        if load!(endpoint, track) == Track::Unknown as u32 {
            if !proven(mark) {
                skip_write(endpoint, mark, written, bytes);
                return;
            }
            store!(endpoint, track, Track::Sure as u32);
            store!(endpoint, left, 0);
            store!(endpoint, have, 0);
        }
        let mut i = 0u32;
        while i < MAX_STEPS {
            if !step(endpoint, mark) {
                break;
            }
            i += 1;
        }
        if load!(mark, remaining) != 0 {
            if i == MAX_STEPS {
                lose_track(endpoint, Reason::TooManyFrames);
            }
            skip_write(endpoint, mark, written, bytes);
        }
    }
}

/// Counts what is not walked. A cursor that stopped early no longer fits the bytes: it is dropped.
#[inline(always)]
unsafe fn skip_write(endpoint: *mut Endpoint, mark: *mut Mark, written: u64, bytes: u64) {
    // SAFETY: both point into their maps.
    unsafe {
        store!(endpoint, written, written.wrapping_add(bytes));
        store!(endpoint, track, Track::Unknown as u32);
        store!(mark, end, 0);
        store!(mark, at, 0);
        store!(mark, segments_left, 0);
    }
}

/// From here on frame boundaries are unknown.
#[inline(never)]
pub unsafe fn lose_track(endpoint: *mut Endpoint, reason: Reason) {
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, track, Track::Unknown as u32);
        let head = Head {
            kind: Kind::LostTrack as u16,
            time_ns: crate::connection::now_ns(),
            offset: load!(endpoint, written),
            note: reason as u32,
            ..Head::default()
        };
        emit::record::<0>(endpoint, head, |_| true);
    }
}

/// Bytes under the cursor: of this segment, and accepted.
#[inline(always)]
unsafe fn available(mark: *mut Mark) -> u64 {
    // SAFETY: points into the map.
    unsafe {
        let rest = load!(mark, end).wrapping_sub(load!(mark, at));
        let remaining = load!(mark, remaining);
        if rest < remaining { rest } else { remaining }
    }
}

/// Moves the cursor on.
///
/// # Safety
/// Both point into their maps.
#[inline(always)]
pub unsafe fn advance(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(mark, at, load!(mark, at).wrapping_add(bytes));
        store!(mark, remaining, load!(mark, remaining).wrapping_sub(bytes));
        store!(endpoint, written, load!(endpoint, written).wrapping_add(bytes));
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
#[inline(always)]
unsafe fn step(endpoint: *mut Endpoint, mark: *mut Mark) -> bool {
    // SAFETY: both point into their maps.
    unsafe {
        if load!(endpoint, unparsed) != 0 {
            message::feed(endpoint, mark, 0);
            data_taken(endpoint, mark);
            return true;
        }
        let available = available(mark);
        if available == 0 {
            return load!(mark, remaining) != 0 && next_segment(mark);
        }
        let left = load!(endpoint, left) as u64;
        if left == 0 {
            return frame_header(endpoint, mark, available);
        }
        let bytes = if left < available { left } else { available };
        payload(endpoint, mark, bytes);
        true
    }
}

/// Takes the next `struct iovec`.
#[inline(always)]
unsafe fn next_segment(mark: *mut Mark) -> bool {
    // SAFETY: points into the map.
    unsafe {
        let left = load!(mark, segments_left);
        if left == 0 {
            return false;
        }
        let segment = load!(mark, segments);
        let vector = if load!(mark, segments_in_kernel) != 0 { read::<[u64; 2]>(segment) } else { read_user::<[u64; 2]>(segment) };
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
unsafe fn frame_header(endpoint: *mut Endpoint, mark: *mut Mark, available: u64) -> bool {
    // SAFETY: both point into their maps; `have + take` is at most 9 of the header's 16 bytes.
    unsafe {
        let have = opaque(load!(endpoint, have) as u64);
        if have > 8 {
            return false;
        }
        if have == 0 {
            store!(endpoint, frame_begun_ns, load!(mark, time_ns));
        }
        let need = FRAME_HEADER_BYTES - have;
        let take = at_most(if available < need { available } else { need }, FRAME_HEADER_BYTES);
        let to = (&raw mut (*endpoint).header).cast::<u8>().add(have as usize);
        if take == 0 || take > 9 - have || !copy_user(to, take as u32, address(mark)) {
            lose_track(endpoint, Reason::ReadFault);
            return false;
        }
        advance(endpoint, mark, take);
        if take < need {
            store!(endpoint, have, (have + take) as u32);
            return true;
        }
        store!(endpoint, have, 0);
        parse_header(endpoint);
        if !plausible(load!(endpoint, length), load!(endpoint, frame), load!(endpoint, stream)) {
            lose_track(endpoint, Reason::NoFrame);
            return false;
        }
        store!(endpoint, left, load!(endpoint, length));
        frame_begins(endpoint, mark);
        true
    }
}

#[inline(always)]
unsafe fn parse_header(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let h = load!(endpoint, header);
        store!(endpoint, length, (h[0] as u32) << 16 | (h[1] as u32) << 8 | h[2] as u32);
        store!(endpoint, frame, h[3] as u32);
        store!(endpoint, flags, h[4] as u32);
        // The reserved bit is ignored (RFC 9113 §4.1).
        store!(endpoint, stream, u32::from_be_bytes([h[5], h[6], h[7], h[8]]) & 0x7fff_ffff);
    }
}

/// Whether this can be the header of a frame: its stream is 0 just where RFC 9113 §6 says so.
#[inline(always)]
fn plausible(length: u32, frame: u32, stream: u32) -> bool {
    if length > MAX_FRAME_BYTES || frame > HIGHEST_TYPE {
        return false;
    }
    match frame {
        // DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION
        0..=3 | 5 | CONTINUATION => stream != 0,
        // SETTINGS, PING, GOAWAY
        SETTINGS | 6 | GOAWAY => stream == 0,
        _ => true,
    }
}

#[inline(always)]
unsafe fn frame_begins(endpoint: *mut Endpoint, mark: *mut Mark) {
    // SAFETY: both point into their maps.
    unsafe {
        let frame = load!(endpoint, frame);
        if frame == HEADERS {
            store!(endpoint, copied, 0);
            if load!(endpoint, flags) & END_STREAM == 0 {
                message::stream_begins(endpoint, mark);
            }
        }
        if load!(endpoint, left) != 0 {
            return;
        }
        match frame {
            HEADERS | CONTINUATION => fragment(endpoint, mark, 0, Kind::Headers),
            DATA => data_ends(endpoint, mark),
            _ => {}
        }
    }
}

/// Takes `bytes` of the current frame's payload, all of them in this segment.
#[inline(always)]
unsafe fn payload(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64) {
    // SAFETY: both point into their maps.
    unsafe {
        let frame = load!(endpoint, frame);
        match frame {
            HEADERS | CONTINUATION => fragment(endpoint, mark, bytes, Kind::Headers),
            SETTINGS => {
                if load!(endpoint, flags) & ACK == 0 {
                    fragment(endpoint, mark, bytes, Kind::Settings);
                } else {
                    pass(endpoint, mark, bytes);
                }
            }
            DATA if load!(endpoint, flags) & PADDED == 0 => {
                let taken = message::feed(endpoint, mark, bytes);
                store!(endpoint, left, load!(endpoint, left).wrapping_sub(taken as u32));
            }
            RST_STREAM | GOAWAY => {
                tell_end(endpoint, mark, bytes, frame);
                pass(endpoint, mark, bytes);
            }
            _ => pass(endpoint, mark, bytes),
        }
        if frame == DATA {
            data_taken(endpoint, mark);
        }
    }
}

/// Ends the frame when all of its payload was taken and looked at.
#[inline(always)]
unsafe fn data_taken(endpoint: *mut Endpoint, mark: *mut Mark) {
    // SAFETY: both point into their maps.
    unsafe {
        if load!(endpoint, left) == 0 && load!(endpoint, unparsed) == 0 {
            data_ends(endpoint, mark);
        }
    }
}

/// Takes payload bytes without a look.
#[inline(always)]
unsafe fn pass(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64) {
    // SAFETY: both point into their maps.
    unsafe {
        store!(endpoint, left, load!(endpoint, left).wrapping_sub(bytes as u32));
        advance(endpoint, mark, bytes);
    }
}

/// A head with what all records of this frame share.
///
/// # Safety
/// Both point into their maps.
#[inline(always)]
pub unsafe fn head(endpoint: *mut Endpoint, mark: *mut Mark, kind: Kind) -> Head {
    // SAFETY: the caller's promise.
    unsafe {
        Head {
            kind: kind as u16,
            flags: load!(endpoint, flags) as u8,
            time_ns: load!(mark, time_ns),
            begun_ns: load!(endpoint, frame_begun_ns),
            offset: load!(endpoint, written),
            stream: load!(endpoint, stream),
            ..Head::default()
        }
    }
}

/// Copies a part of a header block, or of a SETTINGS payload.
#[inline(never)]
unsafe fn fragment(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64, kind: Kind) {
    // SAFETY: both point into their maps; each record has room for what is copied into it.
    unsafe {
        let from = address(mark);
        let begins = load!(endpoint, left) == load!(endpoint, length);
        if load!(endpoint, frame) != CONTINUATION && begins {
            store!(endpoint, copied, 0);
        }
        pass(endpoint, mark, bytes);
        let copied = at_most(load!(endpoint, copied) as u64, HEADER_BLOCK_BYTES as u64);
        let captured = at_most(bytes, HEADER_BLOCK_BYTES as u64 - copied);
        store!(endpoint, copied, (copied + captured) as u32);
        let mut head = head(endpoint, mark, kind);
        head.length = bytes as u32;
        head.captured = captured as u32;
        head.note = note_of(endpoint, begins);
        if captured <= SMALL_HEADER_BYTES as u64 {
            emit::record::<SMALL_HEADER_BYTES>(endpoint, head, |data| {
                copy_user(data, at_most(captured, SMALL_HEADER_BYTES as u64) as u32, from)
            });
        } else {
            emit::record::<HEADER_BLOCK_BYTES>(endpoint, head, |data| {
                copy_user(data, at_most(captured, HEADER_BLOCK_BYTES as u64) as u32, from)
            });
        }
    }
}

#[inline(always)]
unsafe fn note_of(endpoint: *mut Endpoint, begins: bool) -> u32 {
    // SAFETY: points into the map.
    unsafe {
        let frame = load!(endpoint, frame);
        let mut note = 0;
        if begins {
            note |= headers::FRAME_BEGINS;
        }
        if load!(endpoint, left) == 0 {
            note |= headers::FRAME_COMPLETE;
        }
        if frame == CONTINUATION {
            note |= headers::CONTINUATION;
        }
        if frame == HEADERS && load!(endpoint, flags) & END_STREAM != 0 && begins && message::stream_ends(endpoint) {
            note |= headers::AFTER_DATA;
        }
        note
    }
}

/// The last byte of a DATA frame was taken.
#[inline(never)]
unsafe fn data_ends(endpoint: *mut Endpoint, mark: *mut Mark) {
    // SAFETY: both point into their maps.
    unsafe {
        if load!(endpoint, flags) & END_STREAM == 0 {
            return;
        }
        let head = head(endpoint, mark, Kind::DataEnd);
        emit::record::<0>(endpoint, head, |_| true);
        message::stream_ends(endpoint);
    }
}

/// RST_STREAM and GOAWAY, at the part of their payload that holds the error code (RFC 9113 §6.4, §6.8).
#[inline(never)]
unsafe fn tell_end(endpoint: *mut Endpoint, mark: *mut Mark, bytes: u64, frame: u32) {
    // SAFETY: both point into their maps.
    unsafe {
        if load!(endpoint, left) != load!(endpoint, length) {
            return;
        }
        let at = if frame == GOAWAY { 4 } else { 0 };
        let from = address(mark);
        let code = if bytes >= at + 4 { read_user::<u32>(from.wrapping_add(at)) } else { None };
        let kind = if frame == GOAWAY { Kind::GoAway } else { Kind::Reset };
        let mut head = head(endpoint, mark, kind);
        head.offset = head.offset.wrapping_add(bytes);
        head.note = u32::from_be(code.unwrap_or(u32::MAX));
        if frame == GOAWAY {
            let last = if bytes >= 4 { read_user::<u32>(from) } else { None };
            head.stream = u32::from_be(last.unwrap_or(u32::MAX)) & 0x7fff_ffff;
        } else {
            let key = StreamKey { sk: load!(endpoint, sk), stream: head.stream, zero: 0 };
            let _ = STREAMS.remove(&key);
        }
        emit::record::<0>(endpoint, head, |_| true);
    }
}

/// Whether the cursor stands at a frame boundary: frames follow one another to the end of the segment, or enough of them do.
#[inline(never)]
unsafe fn proven(mark: *mut Mark) -> bool {
    // SAFETY: points into the map.
    unsafe {
        if load!(mark, end) == load!(mark, at) && !next_segment(mark) {
            return false;
        }
        let (from, bytes) = (address(mark), available(mark));
        let mut at = 0u64;
        let mut i = 0u32;
        while i < PROOF_FRAMES {
            if bytes < at + FRAME_HEADER_BYTES {
                return false;
            }
            let Some(h) = read_user::<[u8; 9]>(from.wrapping_add(at)) else { return false };
            let length = (h[0] as u32) << 16 | (h[1] as u32) << 8 | h[2] as u32;
            if h[5] & 0x80 != 0 || !plausible(length, h[3] as u32, u32::from_be_bytes([h[5], h[6], h[7], h[8]])) {
                return false;
            }
            at = opaque(at + FRAME_HEADER_BYTES + length as u64);
            if at == bytes {
                return true;
            }
            i += 1;
        }
        true
    }
}
