//! The programs' counters, read through a memory mapping: a `bpf()` map call on a schedule would make kprobes miss.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use aya::maps::Map;
use spanlet_abi::counters::Counters;
use spanlet_abi::event::{Kind, Reason};

/// A mapping of the one element of the counters' array.
#[derive(Debug)]
pub struct CountersView {
    counters: NonNull<Counters>,
}

// SAFETY: the mapping is valid until it is dropped, whichever thread holds it; it is only read and written with volatile accesses.
unsafe impl Send for CountersView {}

/// A record kind and a reason for which records were lost, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub kind: Kind,
    pub reason: Reason,
    pub count: u64,
}

impl CountersView {
    /// Maps the array's pages.
    pub(super) fn of(map: &Map) -> io::Result<Self> {
        let Map::Array(data) = map else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the counters are no array"));
        };
        let descriptor = std::os::fd::AsFd::as_fd(data.fd()).as_raw_fd();
        // SAFETY: a fresh shared mapping of a memory-mappable array; the kernel checks its size.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Counters>(),
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
            Some(counters) => Ok(Self { counters }),
            None => Err(io::Error::other("mapped at address zero")),
        }
    }

    /// Tells the programs how many ends of older connections there are to find.
    pub fn set_old_connections(&self, ends: u64) {
        // SAFETY: inside the mapping, aligned; the programs count it down.
        unsafe { (&raw mut (*self.counters.as_ptr()).old_connections).write_volatile(ends) };
    }

    /// Records that were to be written, by kind.
    pub fn seen(&self, kind: Kind) -> u64 {
        // SAFETY: inside the mapping, aligned; the programs add to it at any time.
        unsafe { (&raw const (*self.counters.as_ptr()).seen[kind as usize]).read_volatile() }
    }

    /// What was lost, kinds and reasons without a loss left out.
    pub fn lost(&self) -> Vec<Lost> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            for reason in Reason::ALL {
                // SAFETY: as above.
                let count = unsafe {
                    (&raw const (*self.counters.as_ptr()).lost[kind as usize][reason as usize]).read_volatile()
                };
                if count != 0 {
                    all.push(Lost { kind, reason, count });
                }
            }
        }
        all
    }
}

impl Drop for CountersView {
    fn drop(&mut self) {
        // SAFETY: the mapping of `of`, unmapped once.
        unsafe { libc::munmap(self.counters.as_ptr().cast(), size_of::<Counters>()) };
    }
}
