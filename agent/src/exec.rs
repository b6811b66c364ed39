//! One process that the runtime started on the host: shim, runc or crun, conmon, a CNI plugin or a child of one.

use crate::pod::Owner;

/// A process from its exec to its exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    pub parent_pid: u32,
    /// Arguments, at most 512 bytes in all.
    pub argv: Vec<String>,
    /// The `CNI_*` variables of its environment, `NAME=value`.
    pub cni: Vec<String>,
    /// Unix nanoseconds.
    pub started_ns: u64,
    /// Unix nanoseconds; `None` while it runs.
    pub ended_ns: Option<u64>,
    /// The exit status as `wait(2)` encodes it.
    pub exit_status: Option<i32>,
    /// User and system time, nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Set by `enrich`.
    pub owner: Option<Owner>,
}
