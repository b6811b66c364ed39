//! What a thread is about to do, from the entry of a system call or function until its bytes are accepted.
//!
//! ```text
//! begin ──► active ──end──► at rest ──begin──► active …
//! ```
//! A thread keeps its mark from one call to the next: to make and to delete an entry of the map costs several times what finding
//! it does. A call that never queues anything leaves its mark active until the thread's next one.

use spanlet_abi::layout::Action;

use crate::connection::{now_ns, thread};
use crate::maps::{EMPTY_MARK, MARKS, Mark, load, store};

/// The current thread begins something; the mark is blank but for what is given.
#[inline(always)]
pub fn begin(sk: u64, action: u8, descriptor: u32) -> Option<*mut Mark> {
    let thread = thread();
    let mark = match MARKS.get_ptr_mut(&thread) {
        Some(mark) => mark,
        None => {
            let _ = MARKS.insert(thread, &EMPTY_MARK, 0);
            MARKS.get_ptr_mut(&thread)?
        }
    };
    // SAFETY: points into the map; only this thread writes there.
    unsafe {
        store!(mark, sk, sk);
        store!(mark, time_ns, now_ns());
        store!(mark, action, action as u32);
        store!(mark, descriptor, descriptor);
        store!(mark, buffer, 0);
        store!(mark, at, 0);
        store!(mark, end, 0);
        store!(mark, segments, 0);
        store!(mark, segments_left, 0);
        store!(mark, segments_in_kernel, 0);
        store!(mark, accepted, 0);
    }
    Some(mark)
}

/// The current thread begins to connect to an address.
#[inline(always)]
pub fn begin_connect(sk: u64, descriptor: u32, address: u64, length: u64) {
    if let Some(mark) = begin(sk, Action::Connect as u8, descriptor) {
        // SAFETY: points into the map.
        unsafe {
            store!(mark, address, address);
            store!(mark, address_length, length);
        }
    }
}

/// The current thread's mark, if it is active.
#[inline(always)]
pub fn active() -> Option<*mut Mark> {
    let mark = MARKS.get_ptr_mut(&thread())?;
    // SAFETY: points into the map.
    if unsafe { load!(mark, action) } == Action::None as u32 { None } else { Some(mark) }
}

/// What was begun is over.
///
/// # Safety
/// `mark` points into the map.
#[inline(always)]
pub unsafe fn end(mark: *mut Mark) {
    // SAFETY: the caller's promise.
    unsafe { store!(mark, action, Action::None as u32) };
}
