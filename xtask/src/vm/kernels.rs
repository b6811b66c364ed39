//! Which kernels are booted, where their packages come from, and how each is booted.

/// A kernel of a Debian release.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// Its package is `linux-image-PREFIX…-cloud-amd64`, of which the archive holds a few revisions at a time.
    pub(super) prefix: &'static str,
    pub(super) boots: &'static [Boot],
    /// Only with `--long`.
    pub(super) long: bool,
}

/// One boot, in which every mode is replayed.
#[derive(Debug)]
pub(super) struct Boot {
    /// Added to the kernel's command line.
    pub(super) options: &'static str,
    /// Values of `capture.mode`.
    pub(super) modes: &'static [&'static str],
    /// Not the boot that each mode is measured by, which cannot preempt a task inside a kernel program.
    pub(super) variant: bool,
    /// Only with `--long`.
    pub(super) long: bool,
}

const MODES: &[&str] = &["fentry", "kprobe", "tracepoint"];

/// A boot in which every mode is exact.
const fn exact(options: &'static str) -> Boot {
    Boot { options, modes: MODES, variant: false, long: false }
}

/// Programs attached by fentry and tracepoints are skipped where a task is preempted inside one: kprobe is for that.
const PREEMPTING: Boot = Boot { options: "preempt=full", modes: &["kprobe"], variant: true, long: false };
const PREEMPTING_LONG: Boot = Boot { long: true, ..PREEMPTING };

pub(super) const KERNELS: &[Kernel] = &[
    // The oldest that is supported; it has neither bpf_loop nor a preemption model that could be chosen.
    Kernel { name: "5.10", prefix: "5.10.", boots: &[exact("")], long: false },
    Kernel { name: "6.1", prefix: "6.1.", boots: &[exact(""), PREEMPTING_LONG], long: false },
    Kernel { name: "6.12", prefix: "6.12.", boots: &[exact(""), PREEMPTING_LONG], long: false },
    // It preempts lazily unless told otherwise.
    Kernel { name: "6.18", prefix: "6.18.", boots: &[exact("preempt=none"), PREEMPTING], long: false },
];

/// What the command takes as a kernel.
pub(super) const NAMES: [&str; KERNELS.len()] = {
    let mut names = [""; KERNELS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = KERNELS[i].name;
        i += 1;
    }
    names
};

// === impl Boot ===

impl Boot {
    /// As lines begin: `6.12`, or `variant 6.12 preempt=full`.
    pub(super) fn title(&self, kernel: &Kernel) -> String {
        if self.variant { format!("variant {} {}", kernel.name, self.options) } else { kernel.name.to_owned() }
    }
}
