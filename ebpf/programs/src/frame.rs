//! The header of a frame (RFC 9113 §4.1), wherever writes cut it, and whether bytes can be one.

use spanlet_abi::limits::{MAX_FRAME_BYTES, PROOF_FRAMES};

use crate::ahead;
use crate::kernel::{copy_user, opaque, read_user};
use crate::maps::{Endpoint, Mark, load, store};
use crate::walk::{Walk, address, advance, mark_of, next_segment, step_over, there};

pub const FRAME_HEADER_BYTES: u64 = 9;
/// The highest registered type, PRIORITY_UPDATE (RFC 9218 §7.1).
const HIGHEST_TYPE: u32 = 0x10;

/// Takes all nine bytes and what they say, if they are in one piece, and sets [`Mark::part`] to what is there of the payload.
///
/// # Safety
/// `walk` points into the maps.
#[inline(always)]
pub unsafe fn whole_header(walk: Walk) -> bool {
    let endpoint = walk.endpoint;
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(endpoint);
        let there = there(mark);
        if load!(endpoint, have) != 0 || there < FRAME_HEADER_BYTES {
            return false;
        }
        let Some(ahead) = ahead::of_cursor(walk, FRAME_HEADER_BYTES) else { return false };
        let length = parse(endpoint, ahead::word(ahead), ahead.add(8).read_volatile()) as u64;
        store!(endpoint, frame_begun_ns, load!(mark, time_ns));
        let behind = there - FRAME_HEADER_BYTES;
        store!(mark, part, if length < behind { length } else { behind });
        step_over(endpoint, FRAME_HEADER_BYTES);
        true
    }
}

/// Takes what is there of the nine bytes.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(never)]
pub unsafe fn header_bytes(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map; `have + take` is at most 9 of the header's 16 bytes.
    unsafe {
        let mark = mark_of(endpoint);
        let have = opaque(load!(endpoint, have) as u64);
        if have > 8 {
            return false;
        }
        if have == 0 {
            store!(endpoint, frame_begun_ns, load!(mark, time_ns));
        }
        let part = load!(mark, part);
        let need = FRAME_HEADER_BYTES - have;
        let take = opaque(if part < need { part } else { need });
        if take == 0 || take > FRAME_HEADER_BYTES {
            return false;
        }
        // The header has room for 16: the verifier need not see that have + take is at most 9, only that it is at most 17.
        let take = if have > 6 && take > 7 { 7 } else { take };
        let to = (&raw mut (*endpoint).header).cast::<u8>().add(have as usize);
        if !copy_user(to, take as u32, address(mark)) {
            return false;
        }
        store!(endpoint, have, (have + take) as u32);
        advance(endpoint, take);
        true
    }
}

/// Takes the header apart that was put together.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn parse_bytes(endpoint: *mut Endpoint) {
    // SAFETY: points into the map; the header has room for more than nine bytes and is aligned to eight.
    unsafe {
        let header = (&raw const (*endpoint).header).cast::<u8>();
        parse(endpoint, header.cast::<u64>().read_volatile(), header.add(8).read_volatile());
        store!(endpoint, have, 0);
    }
}

/// Takes a header apart; the length of its payload.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
unsafe fn parse(endpoint: *mut Endpoint, first_eight: u64, last: u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = u64::from_be(first_eight);
        let length = (first >> 40) as u32;
        store!(endpoint, length, length);
        store!(endpoint, left, length);
        store!(endpoint, frame, (first >> 32) as u32 & 0xff);
        store!(endpoint, flags, (first >> 24) as u32 & 0xff);
        // The reserved bit is ignored (RFC 9113 §4.1).
        store!(endpoint, stream, (first as u32 & 0x7f_ffff) << 8 | last as u32);
        length
    }
}

/// Whether what was parsed can be the header of a frame.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn plausible(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map.
    unsafe { is_frame(load!(endpoint, length), load!(endpoint, frame), load!(endpoint, stream)) }
}

/// Whether this can be the header of a frame: its stream is 0 just where RFC 9113 §6 says so.
#[inline(always)]
fn is_frame(length: u32, frame: u32, stream: u32) -> bool {
    /// DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION
    const OF_A_STREAM: u32 = 0b10_0010_1111;
    /// SETTINGS, PING, GOAWAY
    const OF_THE_CONNECTION: u32 = 0b1101_0000;
    if length > MAX_FRAME_BYTES || frame > HIGHEST_TYPE {
        return false;
    }
    let kind = 1 << frame;
    if stream == 0 { kind & OF_A_STREAM == 0 } else { kind & OF_THE_CONNECTION == 0 }
}

/// Whether the cursor stands at a frame boundary: frames follow one another to the end of the segment, or enough of them do.
///
/// # Safety
/// `mark` points into the map.
#[inline(never)]
pub unsafe fn proven(mark: *mut Mark) -> bool {
    // SAFETY: points into the map.
    unsafe {
        if load!(mark, end) == load!(mark, at) && !next_segment(mark) {
            return false;
        }
        let rest = load!(mark, end).wrapping_sub(load!(mark, at));
        let remaining = load!(mark, remaining);
        let (from, bytes) = (address(mark), if rest < remaining { rest } else { remaining });
        let mut at = 0u64;
        let mut i = 0u32;
        while i < PROOF_FRAMES {
            if bytes < at + FRAME_HEADER_BYTES {
                return false;
            }
            let Some(h) = read_user::<[u8; 9]>(from.wrapping_add(at)) else { return false };
            let length = (h[0] as u32) << 16 | (h[1] as u32) << 8 | h[2] as u32;
            if h[5] & 0x80 != 0 || !is_frame(length, h[3] as u32, u32::from_be_bytes([h[5], h[6], h[7], h[8]])) {
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
