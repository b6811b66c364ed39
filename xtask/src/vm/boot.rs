//! One virtual machine, from power on to power off; what it said on its serial console is kept as a file too.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::architecture::Counts;
use super::fleet::Machine;
use super::guest::RECORDING;
use super::verdict;
use crate::sh;

/// Some minutes are enough on a quiet machine; this is far above, for busy ones.
const TIMEOUT_SECONDS: u64 = 1800;
/// The recording's 28 s in 14.
const REPLAY_SPEED: &str = "2";
/// Calls of a storm: of every kind, and more at a time than a connection has threads.
pub(super) const STORM_CALLS: u64 = 300;
/// Now and then a translated kernel dies before it runs anything of ours.
const ATTEMPTS: usize = 2;

/// What the guest is booted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// The recording, in each mode.
    Replay,
    /// The bench of costs, in each mode, with a clock that counts instructions.
    Cost,
}

/// Boots until the guest has begun to work, and returns what it said.
pub(super) fn run(machine: &Machine<'_>, work: Work, folder: &Path) -> Result<String> {
    let console = folder.join(format!("console-{}.log", machine.title().replace(' ', "-")));
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        sh::into_file(&mut command(machine, work), &console)?;
        let bytes = fs::read(&console).with_context(|| format!("reading {}", console.display()))?;
        said = String::from_utf8_lossy(&bytes).into_owned();
        if verdict::has_booted(&said) {
            break;
        }
    }
    Ok(said)
}

fn command(machine: &Machine<'_>, work: Work) -> Command {
    let Machine { kernel, boot, image, initramfs } = machine;
    let modes: Vec<&str> = boot.modes.iter().copied().filter(|mode| kernel.lack_of(mode).is_none()).collect();
    let command_line = format!(
        "console={} quiet panic=-1 mitigations=off {} spanlet.modes={} spanlet.speed={REPLAY_SPEED} \
         spanlet.calls={STORM_CALLS} spanlet.recording={RECORDING} spanlet.work={}",
        kernel.architecture.console(),
        boot.options,
        modes.join(","),
        work.name(),
    );
    let mut qemu = kernel.architecture.machine(work.counts());
    match work {
        Work::Replay => qemu.args(["-smp", "2"]),
        // An instruction is a nanosecond, and sleep takes no time.
        Work::Cost => qemu.args(["-smp", "1", "-icount", "shift=0,sleep=off"]),
    };
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).args(["-append", &command_line]);
    let mut timeout = Command::new("timeout");
    // In the foreground a Ctrl-C at the terminal ends the machine too.
    timeout.args(["--foreground", &TIMEOUT_SECONDS.to_string()]).arg(qemu.get_program()).args(qemu.get_args());
    timeout
}

// === impl Work ===

impl Work {
    /// What the guest needs for it. The first two are built for the tests too, and by themselves: with a third they would be built anew.
    pub(super) const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Replay => &["spanlet", "spanlet-node"],
            Self::Cost => &["spanlet", "spanlet-bench"],
        }
    }

    const fn counts(self) -> Counts {
        match self {
            Self::Replay => Counts::Time,
            Self::Cost => Counts::Instructions,
        }
    }

    /// As the guest's script knows it.
    const fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Cost => "cost",
        }
    }
}
