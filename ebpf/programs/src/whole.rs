//! A message that is whole in one DATA frame of one write, as most are: looked at at once, instead of stage by stage in `message`, of
//! which this is the short way. What it does not know it leaves to that.

use spanlet_abi::event::{CLIENT, Kind, field};
use spanlet_abi::limits::ID_BYTES;

use crate::ahead::{self, word};
use crate::batch;
use crate::connection;
use crate::id::{ID_HEAD, ID_HEAD_BYTES};
use crate::maps::{Endpoint, load, store};
use crate::message::{FIELD_1, KIND_CRI, PREFIX_BYTES, stage};
use crate::streams::message_of;
use crate::walk::{Walk, address, mark_of, take};

/// The prefix, and of the message two tags and two lengths of a byte each, and a first byte.
const LOOKED_AT_BYTES: u64 = PREFIX_BYTES as u64 + 5;
/// Numbers below have one byte (protobuf encoding, base 128 varints).
const ONE_BYTE: u32 = 0x80;

/// Takes a whole message; false if it is none, or is to be looked at stage by stage.
///
/// # Safety
/// `walk` points into the maps; a DATA frame's payload begins under its cursor.
#[inline(always)]
pub unsafe fn message(walk: Walk) -> bool {
    let endpoint = walk.endpoint;
    // SAFETY: the caller's promise. Behind what is read ahead there is room for two words more.
    unsafe {
        let message = message_of(endpoint);
        let bytes = load!(mark_of(endpoint), part);
        let is_first = load!(message, stage) == stage::PREFIX && load!(message, have) == 0;
        if !is_first || bytes != load!(endpoint, length) as u64 || bytes < PREFIX_BYTES as u64 {
            return false;
        }
        let looked_at = if bytes < LOOKED_AT_BYTES { bytes } else { LOOKED_AT_BYTES };
        let Some(there) = ahead::of_cursor(walk, looked_at) else { return false };
        let prefix = word(there);
        let length = u32::from_be((prefix >> 8) as u32);
        if prefix as u8 != 0 || length as u64 != bytes - PREFIX_BYTES as u64 {
            return false;
        }
        let from_client = load!(endpoint, end) == CLIENT as u32;
        if load!(endpoint, kind) == KIND_CRI {
            let start = word(there.add(PREFIX_BYTES as usize));
            let handled = if from_client { tell_field(walk, start, length) } else { !may_be_id(start, length) };
            if !handled {
                return false;
            }
        } else if from_client {
            return false;
        }
        take(endpoint, load!(endpoint, left) as u64);
        ends(endpoint);
        true
    }
}

/// Tells field 1 of a request if it is a string, or a nested message's; false if its numbers are longer than a byte.
#[inline(always)]
unsafe fn tell_field(walk: Walk, start: u64, length: u32) -> bool {
    let endpoint = walk.endpoint;
    let byte = |at: u32| (start >> (8 * at)) as u32 & 0xff;
    if length < 3 || byte(0) != FIELD_1 as u32 {
        return length == 0 || byte(0) < ONE_BYTE && byte(0) != FIELD_1 as u32;
    }
    let outer = byte(1);
    if outer >= ONE_BYTE {
        return false;
    }
    let (at, bytes, note) = if byte(2) == FIELD_1 as u32 {
        if byte(3) >= ONE_BYTE {
            return false;
        }
        // A field that goes beyond its message is none.
        (4, if byte(3) + 2 > outer { 0 } else { byte(3) }, field::NESTED)
    } else {
        (2, if byte(2) < 0x20 { 0 } else { outer }, 0)
    };
    if bytes == 0 || outer + 2 > length {
        return true;
    }
    // SAFETY: points into the maps.
    unsafe {
        take(endpoint, (PREFIX_BYTES + at) as u64);
        let note = note | field::BEGINS | field::COMPLETE;
        batch::set_out(walk, Kind::Field, load!(mark_of(endpoint), time_ns), bytes, note, 1);
        batch::with_memory(walk, address(mark_of(endpoint)), bytes);
    }
    true
}

/// Whether an answer's first field may be an id: see `id`.
#[inline(always)]
fn may_be_id(start: u64, length: u32) -> bool {
    start as u16 == ID_HEAD && length >= ID_HEAD_BYTES + ID_BYTES as u32
}

/// The message is over with what was taken.
#[inline(always)]
unsafe fn ends(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        store!(message, end_offset, load!(endpoint, written));
        store!(message, end_ns, load!(mark_of(endpoint), time_ns));
        store!(message, stage, stage::AFTER);
        store!(endpoint, unparsed, 0);
        connection::reaches_point(endpoint);
    }
}
