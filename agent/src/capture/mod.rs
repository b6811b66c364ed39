pub mod attach;
pub mod counters;
pub mod identity;
pub mod layout;
pub mod paths;
pub mod system_calls;

/// How the kernel programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    Fentry,
    Kprobe,
    Tracepoint,
}
