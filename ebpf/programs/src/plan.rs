//! What may be copied of a protobuf field, decided by its first bytes: the privacy rule of `message.rs`. For a message that
//! comes in one piece `whole.rs` decides the same.

use spanlet_abi::event::field;
use spanlet_abi::limits::{MAX_FIELDS, NESTED_BYTES, STRING_BYTES};

use crate::kernel::at_most;
use crate::maps::{Endpoint, Message, WINDOW, load, store};
use crate::message::{FIELD_1, KIND_CRI, KIND_DRA};
use crate::streams::message_of;

/// Bytes of a tag or length that are read: 28 bits, more than any message has (protobuf encoding, base 128 varints).
const LENGTH_BYTES: u32 = 4;
/// Most bytes of any number.
const NUMBER_BYTES: u32 = 10;

/// Decides by a field's first bytes what is copied of it; false: nothing more of this message.
///
/// What it decides goes through the map value: read back it is an unknown scalar, so that the ways through here meet again
/// for the verifier.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(never)]
pub unsafe fn plan(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map; `byte` stays within the window.
    unsafe {
        let message = message_of(endpoint);
        let fields = load!(message, fields) + 1;
        store!(message, fields, fields);
        store!(message, at, 0);
        store!(message, copy, 0);
        store!(message, skip, 0);
        store!(message, note, 0);
        let have = load!(message, have);
        if have == 0 || fields > MAX_FIELDS {
            return false;
        }
        if !varint(message) {
            return false;
        }
        let tag = load!(message, value);
        store!(message, field, tag >> 3);
        match tag & 7 {
            2 => varint(message) && plan_bytes(endpoint),
            _ if load!(endpoint, kind) == KIND_CRI => false,
            0 => skip_number(message),
            1 => {
                store!(message, skip, 8);
                true
            }
            5 => {
                store!(message, skip, 4);
                true
            }
            _ => false,
        }
    }
}

/// A field with a length: `value` bytes from `at` on.
#[inline(always)]
unsafe fn plan_bytes(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map; `byte` stays within the window.
    unsafe {
        let message = message_of(endpoint);
        let (kind, number) = (load!(endpoint, kind), load!(message, field));
        if kind == KIND_CRI && number != 1 {
            return false;
        }
        let length = load!(message, value);
        let first = if length == 0 { 0 } else { byte(message, load!(message, at) as u64) };
        store!(message, skip, length);
        if number == 1 && first == FIELD_1 {
            if kind == KIND_DRA {
                // A claim: its fields are looked at as they come.
                store!(message, skip, 0);
                return true;
            }
            return plan_nested(message);
        }
        let text = first >= 0x20;
        let wanted = match kind {
            KIND_CRI => text,
            KIND_DRA => text && number <= 3,
            _ => text && number == 1 || first == b'/',
        };
        if wanted {
            let copy = if length < STRING_BYTES as u32 { length } else { STRING_BYTES as u32 };
            store!(message, copy, copy);
            store!(message, skip, length - copy);
            store!(message, note, if copy < length { field::CUT } else { 0 });
        }
        true
    }
}

/// Of a nested message only its field 1.
#[inline(never)]
unsafe fn plan_nested(message: *mut Message) -> bool {
    // SAFETY: points into the map.
    unsafe {
        let (outer, start) = (load!(message, value), load!(message, at));
        store!(message, at, start.wrapping_add(1));
        if !varint(message) {
            return false;
        }
        let (inner, taken) = (load!(message, value), load!(message, at).wrapping_sub(start));
        if taken > outer || inner > outer - taken {
            return false;
        }
        let copy = if inner < NESTED_BYTES as u32 { inner } else { NESTED_BYTES as u32 };
        store!(message, copy, copy);
        store!(message, skip, outer - taken - copy);
        store!(message, note, field::NESTED | if copy < inner { field::CUT } else { 0 });
        true
    }
}

/// The window's byte at `at`.
///
/// # Safety
/// `message` points into the map.
#[inline(always)]
pub unsafe fn byte(message: *mut Message, at: u64) -> u8 {
    let at = at_most(at, WINDOW as u64 - 1);
    // SAFETY: inside the window.
    unsafe { core::ptr::read_volatile((&raw const (*message).window).cast::<u8>().add(at as usize)) }
}

/// Reads a tag or length at `at` into `value` and moves `at` behind it; false if it is longer than any that is used.
#[inline(never)]
unsafe fn varint(message: *mut Message) -> bool {
    let mut i = 0u32;
    // SAFETY: points into the map.
    unsafe {
        store!(message, value, 0);
        while i < LENGTH_BYTES {
            let at = load!(message, at);
            let byte = byte(message, at as u64) as u32;
            store!(message, at, at.wrapping_add(1));
            store!(message, value, load!(message, value) | (byte & 0x7f) << (7 * i));
            if byte < 0x80 {
                return true;
            }
            i += 1;
        }
    }
    false
}

/// Moves `at` behind a number.
#[inline(never)]
unsafe fn skip_number(message: *mut Message) -> bool {
    let mut i = 0u32;
    // SAFETY: points into the map.
    unsafe {
        while i < NUMBER_BYTES {
            let at = load!(message, at);
            store!(message, at, at.wrapping_add(1));
            if byte(message, at as u64) < 0x80 {
                return true;
            }
            i += 1;
        }
    }
    false
}
