//! The programs' counters, read through a memory mapping: a `bpf()` map call on a schedule would make kprobes miss.

use std::io;

use aya::maps::Map;
use spanlet_abi::counters::Counters;
use spanlet_abi::event::{Kind, Reason};

use super::mapping::Mapping;

/// A mapping of the one element of the counters' array.
#[derive(Debug)]
pub struct CountersView {
    counters: Mapping<Counters>,
}

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
        Ok(Self { counters: Mapping::of(map, 1)? })
    }

    /// The agent is about to wait, unless something is in the ring: what comes from now on may wake it again.
    pub fn waits(&self) {
        // SAFETY: inside the mapping, aligned; the programs set it.
        unsafe { (&raw mut (*self.counters.element(0)).woken).write_volatile(0) };
    }

    /// Records that were to be written, by kind.
    pub fn seen(&self, kind: Kind) -> u64 {
        // SAFETY: inside the mapping, aligned; the programs add to it at any time.
        unsafe { (&raw const (*self.counters.element(0)).seen[kind as usize]).read_volatile() }
    }

    /// What was lost, kinds and reasons without a loss left out.
    pub fn lost(&self) -> Vec<Lost> {
        let counters = self.counters.element(0);
        let pairs = Kind::ALL.into_iter().flat_map(|kind| Reason::ALL.map(|reason| (kind, reason)));
        let counted = pairs.map(|(kind, reason)| {
            // SAFETY: as above.
            let count = unsafe { (&raw const (*counters).lost[kind as usize][reason as usize]).read_volatile() };
            Lost { kind, reason, count }
        });
        counted.filter(|lost| lost.count != 0).collect()
    }

    /// The kernel variable that a program was asked to read; `None` while it was not, or where it could not be.
    pub(super) fn variable(&self) -> Option<u32> {
        // SAFETY: as above.
        let value = unsafe { (&raw const (*self.counters.element(0)).variable).read_volatile() };
        (value >> 32 != 0).then_some(value as u32)
    }
}
