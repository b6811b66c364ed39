//! Whose message is looked at: that of the stream that was in frames last stands in the endpoint, others wait in a map.
//!
//! ```text
//! HEADERS ──► current ──another stream's frame──► parked ──its own DATA──► current …
//!                └──────────── END_STREAM ───────────┴──► gone
//! ```
//! Frames of a call mostly come one behind the other, and an insertion into the map takes as long as the rest of a write's walk.

use crate::kernel::copy;
use crate::maps::{Endpoint, Message, STREAMS, StreamKey, load, store};
use crate::message::stage;

/// HEADERS without END_STREAM: a message will follow.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn stream_begins(endpoint: *mut Endpoint) {
    // SAFETY: the caller's promise.
    unsafe {
        let message = message_of(endpoint);
        let stream = load!(endpoint, stream);
        if load!(message, stream) != 0 && load!(message, stream) != stream {
            park(endpoint);
        }
        store!(message, stage, stage::PREFIX);
        store!(message, stream, stream);
        store!(message, have, 0);
        store!(message, left, 0);
        store!(message, copy, 0);
        store!(message, skip, 0);
        store!(message, fields, 0);
        store!(message, behind, 0);
        store!(message, end_ns, 0);
    }
}

/// END_STREAM: says whether a message came before.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn stream_ends(endpoint: *mut Endpoint) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let current = message_of(endpoint);
        let stream = load!(endpoint, stream);
        if load!(current, stream) == stream {
            store!(current, stream, 0);
            return load!(current, stage) != stage::PREFIX;
        }
        parked_ends(endpoint)
    }
}

/// The same for one that waits in the map.
#[inline(never)]
unsafe fn parked_ends(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map.
    unsafe {
        let key = key(endpoint, load!(endpoint, stream));
        let Some(parked) = STREAMS.get_ptr_mut(&key) else { return false };
        let any = load!(parked, stage) != stage::PREFIX;
        let _ = STREAMS.remove(&key);
        any
    }
}

/// The message that is looked at.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn message_of(endpoint: *mut Endpoint) -> *mut Message {
    // SAFETY: the caller's promise.
    unsafe { &raw mut (*endpoint).message }
}

#[inline(always)]
unsafe fn key(endpoint: *mut Endpoint, stream: u32) -> StreamKey {
    // SAFETY: points into the map.
    unsafe { StreamKey { sk: load!(endpoint, sk), stream, zero: 0 } }
}

/// Makes place: the current message waits in the map of streams.
#[inline(never)]
unsafe fn park(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let message = message_of(endpoint);
        let key = key(endpoint, load!(message, stream));
        let _ = STREAMS.insert(key, &*message, 0);
        store!(message, stream, 0);
    }
}

/// Makes the message of the current frame's stream the current one; false if it is not looked at.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(never)]
pub unsafe fn bring(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map; a message is copied whole.
    unsafe {
        let (message, stream) = (message_of(endpoint), load!(endpoint, stream));
        let key = key(endpoint, stream);
        if STREAMS.get_ptr_mut(&key).is_none() {
            return false;
        }
        if load!(message, stream) != 0 {
            park(endpoint);
        }
        let Some(parked) = STREAMS.get_ptr_mut(&key) else { return false };
        if !copy(message.cast(), size_of::<Message>() as u32, parked as u64) {
            store!(message, stream, 0);
            return false;
        }
        let _ = STREAMS.remove(&key);
        true
    }
}
