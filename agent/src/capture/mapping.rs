//! Memory shared with the kernel programs: the pages of an array map that was made for it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;

use aya::maps::Map;

/// A mapping of an array map's elements, which are `T`s. Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping<T> {
    elements: NonNull<T>,
    count: usize,
}

// SAFETY: the mapping is valid until it is dropped, whichever thread holds it; it is only read and written with volatile accesses.
unsafe impl<T: Send> Send for Mapping<T> {}

impl<T: Copy> Mapping<T> {
    /// Maps the first `count` elements.
    ///
    /// # Errors
    /// When the map is no array, was not made to be mapped, or is smaller.
    pub(super) fn of(map: &Map, count: usize) -> io::Result<Self> {
        let Map::Array(data) = map else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an array"));
        };
        let descriptor = data.fd().as_fd().as_raw_fd();
        // SAFETY: a fresh shared mapping of a memory-mappable array; the kernel checks its size.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(address.cast()) {
            Some(elements) => Ok(Self { elements, count }),
            None => Err(io::Error::other("mapped at address zero")),
        }
    }

    /// Address of an element, for volatile accesses while `self` lives.
    ///
    /// # Panics
    /// When there is no such element.
    pub(super) fn element(&self, index: usize) -> *mut T {
        assert!(index < self.count, "{index} is not below {}", self.count);
        // SAFETY: inside the mapping.
        unsafe { self.elements.as_ptr().add(index) }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `of`, unmapped once.
        unsafe { libc::munmap(self.elements.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}
