//! Who the agent is to the kernel programs: they must know its node's namespaces, and leave out its own calls.

use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The agent's process and namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Process id in the agent's own pid namespace.
    pub process: u32,
    /// Inode number of the network namespace.
    pub net_inum: u32,
    /// Inode number of the pid namespace.
    pub pid_inum: u32,
}

impl Identity {
    /// The identity of this process.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self { process: std::process::id(), net_inum: namespace("net")?, pid_inum: namespace("pid")? })
    }
}

/// Namespace inode numbers are 32 bits wide (linux/ns_common.h).
fn namespace(kind: &str) -> io::Result<u32> {
    Ok(std::fs::metadata(format!("/proc/self/ns/{kind}"))?.ino() as u32)
}
