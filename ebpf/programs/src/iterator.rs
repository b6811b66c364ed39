//! The buffers of a `struct msghdr` inside the kernel: three layouts of `struct iov_iter`, told apart by BTF.

use spanlet_abi::layout::ABSENT;

use crate::kernel::field;
use crate::maps::{Mark, layout, store};

/// Bytes that the iterator still holds.
#[inline(always)]
pub fn count(message: u64) -> Option<u64> {
    field(message.wrapping_add(layout!(msg_iter) as u64), layout!(iter_count))
}

/// Sets the mark's cursor on the iterator's first byte; false for buffers that are not the caller's memory.
///
/// # Safety
/// `mark` points into its map.
#[inline(always)]
pub unsafe fn cursor(message: u64, mark: *mut Mark) -> bool {
    let iterator = message.wrapping_add(layout!(msg_iter) as u64);
    let (Some(offset), Some(count)) =
        (field::<u64>(iterator, layout!(iter_offset)), field::<u64>(iterator, layout!(iter_count)))
    else {
        return false;
    };
    // SAFETY: the caller's promise.
    unsafe {
        store!(mark, message, message);
        store!(mark, count, count);
    }
    let Some(kind) = kind(iterator) else { return false };
    if layout!(iter_is_ubuf) != ABSENT && kind == layout!(iter_is_ubuf) {
        let Some(base) = field::<u64>(iterator, layout!(iter_ubuf)) else { return false };
        // SAFETY: the caller's promise.
        unsafe { place(mark, base, offset, offset.wrapping_add(count)) };
        return true;
    }
    if kind != layout!(iter_is_iovec) {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe { vectors(iterator, offset, mark) }
}

/// # Safety
/// `mark` points into its map.
#[inline(always)]
unsafe fn place(mark: *mut Mark, buffer: u64, at: u64, end: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        store!(mark, buffer, buffer);
        store!(mark, at, at);
        store!(mark, end, end);
    }
}

#[inline(always)]
fn kind(iterator: u64) -> Option<u32> {
    if layout!(iter_type_is_flags) == 1 {
        // 5.10: a word of flag bits, the lowest of which is the direction.
        return Some(field::<u32>(iterator, layout!(iter_type))? & !1);
    }
    Some(field::<u8>(iterator, layout!(iter_type))? as u32)
}

/// # Safety
/// `mark` points into its map.
#[inline(always)]
unsafe fn vectors(iterator: u64, offset: u64, mark: *mut Mark) -> bool {
    let (Some(segments), Some(left)) =
        (field::<u64>(iterator, layout!(iter_iov)), field::<u64>(iterator, layout!(iter_segments)))
    else {
        return false;
    };
    let Some([base, length]) = crate::kernel::read::<[u64; 2]>(segments) else { return false };
    // SAFETY: the caller's promise.
    unsafe {
        place(mark, base, offset, length);
        store!(mark, segments, segments.wrapping_add(16));
        store!(mark, segments_left, (left as u32).saturating_sub(1));
        store!(mark, segments_in_kernel, 1);
    }
    true
}
