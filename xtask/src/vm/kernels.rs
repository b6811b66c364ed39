//! Which kernels are booted, where their packages come from, and how each is booted.

use super::architecture::Architecture;

/// A kernel of a Debian release.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) architecture: Architecture,
    pub(super) packages: Packages,
    pub(super) boots: &'static [Boot],
    /// Attach modes that this kernel cannot have, and why.
    pub(super) without: &'static [(&'static str, &'static str)],
    /// Only with `--long`.
    pub(super) long: bool,
}

/// How the packages of a kernel are named, and where in them it lies: `FOLDER` `RELEASE` `FILE`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packages {
    /// Of those that are wanted; the archive holds a few revisions at a time.
    pub(super) prefix: &'static str,
    /// What stands before the release in their names.
    pub(super) before_release: &'static str,
    pub(super) folder: &'static str,
    pub(super) file: &'static str,
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
}

const MODES: &[&str] = &["fentry", "kprobe", "tracepoint"];

/// A boot in which every mode is exact.
const fn exact(options: &'static str) -> Boot {
    Boot { options, modes: MODES, variant: false }
}

/// Programs attached by fentry and tracepoints are skipped where a task is preempted inside one: kprobe is for that.
const PREEMPTING_ALL: Boot = Boot { options: "preempt=full", modes: &["kprobe"], variant: true };

/// Here it is not inside tracepoints of sockets, which run with preemption off until some kernel behind 6.18.
const PREEMPTING: Boot = Boot { options: "preempt=full", modes: &["kprobe", "tracepoint"], variant: true };

/// Up to 6.19 one package holds kernel and modules.
const fn whole(prefix: &'static str) -> Packages {
    Packages { prefix, before_release: "linux-image-", folder: "boot/vmlinuz-", file: "" }
}

const fn kernel(name: &'static str, packages: Packages, boots: &'static [Boot]) -> Kernel {
    Kernel { name, architecture: Architecture::Amd64, packages, boots, without: &[], long: false }
}

const fn arm64(name: &'static str, packages: Packages, without: &'static [(&'static str, &'static str)]) -> Kernel {
    const BOOTS: &[Boot] = &[exact("")];
    Kernel { name, architecture: Architecture::Arm64, packages, boots: BOOTS, without, long: true }
}

pub(super) const KERNELS: &[Kernel] = &[
    // The oldest that is supported; it has neither bpf_loop nor a preemption model that could be chosen.
    kernel("5.10", whole("linux-image-5.10."), &[exact("")]),
    kernel("6.1", whole("linux-image-6.1."), &[exact(""), PREEMPTING_ALL]),
    kernel("6.12", whole("linux-image-6.12."), &[exact(""), PREEMPTING]),
    // It preempts lazily unless told otherwise.
    kernel("6.18", whole("linux-image-6.18."), &[exact("preempt=none"), PREEMPTING]),
    // It always preempts, lazily at least.
    Kernel {
        long: true,
        ..kernel(
            "7.x",
            Packages {
                prefix: "linux-binary-7.",
                before_release: "linux-binary-",
                folder: "usr/lib/modules/",
                file: "/vmlinuz",
            },
            &[Boot { options: "", modes: &["kprobe"], variant: false }, PREEMPTING_ALL],
        )
    },
    arm64("6.1-arm64", whole("linux-image-6.1."), &[("fentry", "this kernel cannot attach a trampoline on arm64")]),
    arm64("6.12-arm64", whole("linux-image-6.12."), &[]),
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

// === impl Kernel ===

impl Kernel {
    /// Why this kernel cannot have a mode, if it cannot.
    pub(super) fn lack_of(&self, mode: &str) -> Option<&'static str> {
        self.without.iter().find(|(lacking, _)| *lacking == mode).map(|(_, why)| *why)
    }
}

// === impl Boot ===

impl Boot {
    /// As lines begin: `6.12`, or `variant 6.12 preempt=full`.
    pub(super) fn title(&self, kernel: &Kernel) -> String {
        if self.variant { format!("variant {} {}", kernel.name, self.options) } else { kernel.name.to_owned() }
    }
}
