//! The processes that are followed: what the programs keep of each, and the agent seeds.

/// A followed process. Its key is its id in the initial pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Task {
    /// When it was forked, in [`BORN_UNIT_NS`] since boot: tells a process id that is used again.
    pub born: u64,
    /// Inode numbers of the runtime's pid and mount namespaces: what runs in others is not told of.
    pub pid_inum: u32,
    pub mnt_inum: u32,
    /// Its id in the agent's pid namespace once it was told of, and of a runtime; else 0.
    pub process: u32,
    /// That of the nearest process above it that was told of, or of the runtime.
    pub parent: u32,
    /// [`FORKED`], [`TOLD`] or [`RUNTIME`].
    pub state: u32,
    pub zero: u32,
}

/// It has executed nothing yet that was told.
pub const FORKED: u32 = 0;
/// Its exec was told, and its exit is to be.
pub const TOLD: u32 = 1;
/// It serves CRI calls, or was there before the attach: it is not told of, what it starts is.
pub const RUNTIME: u32 = 2;

/// The unit of `starttime` in `/proc/PID/stat`: USER_HZ is 100 on every architecture that Kubernetes runs on.
pub const BORN_UNIT_NS: u64 = 10_000_000;

const _: () = assert!(size_of::<Task>() == 32);
