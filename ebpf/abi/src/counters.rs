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
    /// A kernel variable that the agent asked for, in the lower half; the upper half is 0 until it was read.
    pub variable: u64,
    /// 1 from when the agent was woken until it waits again.
    pub woken: u64,
}

/// A kernel program, as its cost is told. Programs of different modes that do the same work share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Program {
    SysEnter = 0,
    SysExit = 1,
    Send = 2,
    /// What a send has queued, where that is known: its return, or `sock_def_readable`.
    Accepted = 3,
    Read = 4,
    Connect = 5,
    Connected = 6,
    Release = 7,
    Fork = 8,
    Exec = 9,
    Exit = 10,
    /// Of a page (before 6.5): the same as `Send`, and as `Accepted`.
    SendPage = 11,
    PageAccepted = 12,
}

/// What one program has cost on one CPU. One run in [`TIMED_EVERY`] is timed: reading the clock twice would be a good part of a
/// short run. A cache line each, so that CPUs do not share one.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Runs {
    pub runs: u64,
    pub timed: u64,
    pub timed_ns: u64,
    /// When the run began that is being timed, else 0.
    pub began_ns: u64,
    /// For the programs.
    pub number: u64,
}

/// A power of two.
pub const TIMED_EVERY: u64 = 64;

/// A timed run counts at most this long: what takes longer was interrupted or preempted, and no work of ours. A walk of the
/// largest write takes a third of it.
pub const RUN_NS_MAX: u64 = 300_000;

// === impl Program ===

impl Program {
    pub const COUNT: usize = 13;
    pub const ALL: [Self; Self::COUNT] = [
        Self::SysEnter,
        Self::SysExit,
        Self::Send,
        Self::Accepted,
        Self::Read,
        Self::Connect,
        Self::Connected,
        Self::Release,
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::SendPage,
        Self::PageAccepted,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SysEnter => "sys_enter",
            Self::SysExit => "sys_exit",
            Self::Send => "send",
            Self::Accepted => "accepted",
            Self::Read => "read",
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Release => "release",
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::SendPage => "send_page",
            Self::PageAccepted => "page_accepted",
        }
    }
}

const _: () = assert!(size_of::<Runs>() == 64);
const _: () = assert!(size_of::<Counters>() == 8 * (13 + 13 * 7 + 2));
