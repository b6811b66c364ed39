//! Counters that the kernel programs keep in a memory-mapped array, so that reading them takes no system call.

use crate::event::{Kind, Reason};

/// What was to be told and what could not be: `seen = delivered + lost` for each kind.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Counters {
    /// Records that were to be written, by [`Kind`].
    pub seen: [u64; Kind::COUNT],
    /// Records that were not written, by [`Kind`] and [`Reason`].
    pub lost: [[u64; Reason::COUNT]; Kind::COUNT],
    /// Connections older than the attach that are not found yet; set by the agent, counted down by the programs.
    pub old_connections: u64,
}

const _: () = assert!(size_of::<Counters>() == 8 * (13 + 13 * 7 + 1));
