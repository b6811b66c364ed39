//! What a thread is about to do, from the entry of a system call or function until its bytes are accepted.
//!
//! ```text
//! begin ──► active ──end──► at rest ──begin──► active …
//!              │ ▲
//!   another    ▼ │ its bytes are accepted
//! thread's ► parked, in the map of marks
//! ```
//! The mark of a write stands in its endpoint. A call that never queues anything leaves it active; when another thread writes to
//! the same socket it is parked. Marks of threads whose socket is not known when their bytes are accepted stand in the map, too.

use spanlet_abi::layout::Action;
use spanlet_abi::limits::THREAD_SLOTS;

use crate::connection::{now_ns, thread};
use crate::emit;
use crate::kernel::{copy, opaque};
use crate::maps::{EMPTY_MARK, Endpoint, MARKS, Mark, THREADS, load, store};

/// The current thread begins to write to an endpoint; the mark is blank but for what is given.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn begin_write(endpoint: *mut Endpoint, sk: u64, thread: u64) -> *mut Mark {
    // SAFETY: the caller's promise.
    unsafe {
        let mark = &raw mut (*endpoint).mark;
        if is_active(mark) && load!(mark, thread) != thread {
            park(endpoint);
        }
        store!(mark, sk, sk);
        store!(mark, thread, thread);
        store!(mark, time_ns, now_ns());
        store!(mark, action, Action::Write as u32);
        store!(mark, at, 0);
        store!(mark, end, 0);
        store!(mark, segments_left, 0);
        store!(mark, segments_in_kernel, 0);
        store!(mark, accepted, 0);
        mark
    }
}

/// The mark of a thread's write, if it has begun one.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn of_write(endpoint: *mut Endpoint, thread: u64) -> Option<*mut Mark> {
    // SAFETY: the caller's promise.
    unsafe {
        let mark = &raw mut (*endpoint).mark;
        if load!(mark, thread) != thread && !(load!(endpoint, parked) != 0 && unpark(endpoint, thread)) {
            return None;
        }
        if is_active(mark) { Some(mark) } else { None }
    }
}

#[inline(never)]
unsafe fn park(endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    unsafe {
        let mark = &raw mut (*endpoint).mark;
        let thread = load!(mark, thread);
        // Whether the thread is counted is told by its mark in the map alone, in whose place this one goes.
        let counted = match MARKS.get_ptr_mut(&thread) {
            Some(own) => load!(own, counted),
            None => 0,
        };
        store!(mark, counted, counted);
        let _ = MARKS.insert(thread, &*mark, 0);
        store!(endpoint, parked, load!(endpoint, parked).wrapping_add(1));
    }
}

/// Brings a thread's mark back into the endpoint; false if it has none for it.
#[inline(never)]
unsafe fn unpark(endpoint: *mut Endpoint, thread: u64) -> bool {
    // SAFETY: points into the map; a mark is copied whole.
    unsafe {
        let mark = &raw mut (*endpoint).mark;
        let Some(parked) = MARKS.get_ptr_mut(&thread) else { return false };
        let action = load!(parked, action);
        let is_write = action == Action::Write as u32 || action == Action::Unfollowed as u32;
        if load!(parked, sk) != load!(endpoint, sk) || !is_write {
            return false;
        }
        if is_active(mark) {
            park(endpoint);
        }
        let Some(parked) = MARKS.get_ptr_mut(&thread) else { return false };
        store!(endpoint, parked, load!(endpoint, parked).saturating_sub(1));
        let copied = copy(mark.cast(), size_of::<Mark>() as u32, parked as u64);
        store!(parked, action, Action::None as u32);
        copied
    }
}

/// The current thread begins something; its mark in the map says what.
#[inline(always)]
pub fn begin(sk: u64, action: u8) -> Option<*mut Mark> {
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
        store!(mark, action, action as u32);
        if load!(mark, counted) == 0 {
            store!(mark, counted, 1);
            emit::count(slot(thread), 1);
        }
    }
    Some(mark)
}

/// The current thread begins to connect to an address.
#[inline(always)]
pub fn begin_connect(sk: u64, address: u64, length: u64) {
    if let Some(mark) = begin(sk, Action::Connect as u8) {
        // SAFETY: points into the map.
        unsafe {
            store!(mark, address, address);
            store!(mark, address_length, length);
        }
    }
}

/// Whether the current thread may have begun something. Most have begun nothing, which is known without a look-up.
#[inline(always)]
pub fn may_be_active() -> bool {
    // SAFETY: points into the map.
    unsafe { slot(thread()).read_volatile() != 0 }
}

/// What the current thread has begun.
#[inline(always)]
pub fn active() -> Option<*mut Mark> {
    let thread = thread();
    // SAFETY: points into the map.
    if unsafe { slot(thread).read_volatile() } == 0 {
        return None;
    }
    let mark = MARKS.get_ptr_mut(&thread)?;
    // SAFETY: points into the map.
    if unsafe { is_active(mark) } { Some(mark) } else { None }
}

/// How many threads with this hash have begun something. One whose end was not seen stays counted, which costs time only, until it
/// begins anew.
#[inline(always)]
fn slot(thread: u64) -> *mut u32 {
    const { assert!(THREAD_SLOTS.is_power_of_two()) };
    let slots: *mut u32 = (&raw mut THREADS).cast();
    // SAFETY: inside the array.
    unsafe { slots.add(opaque(thread) as usize & (THREAD_SLOTS - 1)) }
}

/// What the current thread's mark, which [`active`] gave, says is over.
///
/// # Safety
/// `mark` points into the map.
#[inline(always)]
pub unsafe fn end_of_thread(mark: *mut Mark) {
    // SAFETY: the caller's promise.
    unsafe {
        end(mark);
        store!(mark, counted, 0);
        emit::count(slot(thread()), -1);
    }
}

/// A socket is closed: a connect of the current thread that has failed, which nothing told, is over.
#[inline(always)]
pub fn forget_connect(sk: u64) {
    let Some(mark) = active() else { return };
    // SAFETY: points into the map.
    unsafe {
        if load!(mark, action) == Action::Connect as u32 && load!(mark, sk) == sk {
            end_of_thread(mark);
        }
    }
}

/// Whether what was begun may be going on. Of a write, some bytes may be queued that are not accounted for yet.
///
/// # Safety
/// `mark` points into the map.
#[inline(always)]
pub unsafe fn is_active(mark: *mut Mark) -> bool {
    // SAFETY: the caller's promise.
    unsafe { load!(mark, action) != Action::None as u32 }
}

/// Of the write that was begun it can only be told how many bytes are accepted: they are not the caller's memory, or not to be found.
///
/// # Safety
/// `mark` points into the map.
#[inline(always)]
pub unsafe fn unfollow(mark: *mut Mark) {
    // SAFETY: the caller's promise.
    unsafe { store!(mark, action, Action::Unfollowed as u32) };
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
