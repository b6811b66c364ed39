//! The buffers of a `struct msghdr` inside the kernel: three layouts of `struct iov_iter`, told apart by BTF.

use spanlet_abi::layout::ABSENT;

use crate::kernel::{cast, casts, copy, field, read_pair, typed};
use crate::maps::{Endpoint, Mark, layout, load, store};
use crate::walk::mark_of;

/// Bytes of a `struct iov_iter`, the same on every kernel.
pub const ITERATOR_BYTES: usize = 40;

/// Bytes that the iterator still holds.
#[inline(always)]
pub fn count(message: u64) -> Option<u64> {
    field(message.wrapping_add(layout!(msg_iter) as u64), layout!(iter_count))
}

/// Sets the cursor of the endpoint's mark on the iterator's first byte; false for buffers that are not the caller's memory.
///
/// `TYPED` says whether the verifier knows the type of `message`, or it is told: then fields take a load each, else all are copied
/// at once.
///
/// # Safety
/// `endpoint` points into its map; with `TYPED`, `message` is a pointer that the verifier follows.
#[inline(always)]
pub unsafe fn cursor<const TYPED: bool>(message: u64, endpoint: *mut Endpoint) -> bool {
    let iterator = message.wrapping_add(layout!(msg_iter) as u64);
    // SAFETY: the caller's promise; the array has room for an iterator.
    unsafe {
        store!(mark_of(endpoint), message, message);
        if TYPED {
            return place(iterator, mark_of(endpoint));
        }
        if casts() {
            return place(cast(iterator, layout!(type_of_iterator)), mark_of(endpoint));
        }
        let copied: *mut u8 = (&raw mut (*endpoint).iterator).cast();
        copy(copied, ITERATOR_BYTES as u32, iterator) && place(copied as u64, mark_of(endpoint))
    }
}

/// # Safety
/// `iterator` may be read as it is, and `mark` points into its map.
#[inline(always)]
unsafe fn place(iterator: u64, mark: *mut Mark) -> bool {
    // SAFETY: the caller's promise. What is a pointer to the verifier goes through the map value, which makes it a number.
    unsafe {
        let (offset, count): (u64, u64) = (typed(iterator, layout!(iter_offset)), typed(iterator, layout!(iter_count)));
        store!(mark, count, count);
        store!(mark, at, offset);
        let kind = kind(iterator);
        if layout!(iter_is_ubuf) != ABSENT && kind == layout!(iter_is_ubuf) {
            store!(mark, buffer, typed::<u64>(iterator, layout!(iter_ubuf)));
            store!(mark, end, offset.wrapping_add(count));
            return true;
        }
        if kind != layout!(iter_is_iovec) {
            return false;
        }
        store!(mark, segments, typed::<u64>(iterator, layout!(iter_iov)));
        vectors(typed(iterator, layout!(iter_segments)), mark)
    }
}

/// # Safety
/// `iterator` may be read as it is.
#[inline(always)]
unsafe fn kind(iterator: u64) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        if layout!(iter_type_is_flags) == 1 {
            // 5.10: a word of flag bits, the lowest of which is the direction.
            return typed::<u32>(iterator, layout!(iter_type)) & !1;
        }
        typed::<u8>(iterator, layout!(iter_type)) as u32
    }
}

/// Takes the first of the segments.
///
/// # Safety
/// `mark` points into its map.
#[inline(always)]
unsafe fn vectors(count: u64, mark: *mut Mark) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let segments = load!(mark, segments);
        let Some([base, length]) = read_pair(segments) else { return false };
        store!(mark, buffer, base);
        store!(mark, end, length);
        store!(mark, segments, segments.wrapping_add(16));
        store!(mark, segments_left, (count as u32).saturating_sub(1));
        store!(mark, segments_in_kernel, 1);
        true
    }
}
