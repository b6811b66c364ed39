//! One virtual machine, from power on to power off; what it said on its serial console is kept as a file too.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::guest::RECORDING;
use super::kernels::{Boot, Kernel};
use super::verdict;
use crate::sh;

/// A boot takes some seconds and each replay less than a minute on a quiet machine; this is far above, for busy ones.
const TIMEOUT_SECONDS: u64 = 600;
/// The recording's 28 s in 14.
const REPLAY_SPEED: &str = "2";
/// The guest computes some ten times slower than this machine: its kubelet and runtime are late, the spans must not come first.
const OTLP_DELAY_SECONDS: &str = "15";
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
pub(super) fn run(
    kernel: &Kernel,
    boot: &Boot,
    work: Work,
    image: &Path,
    initramfs: &Path,
    folder: &Path,
) -> Result<String> {
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let (_, console) = sh::attempt(
            &format!("Booting {}", boot.title(kernel)),
            &mut machine(kernel, boot, work, image, initramfs),
        )?;
        let name = format!("console-{}.log", boot.title(kernel).replace(' ', "-"));
        fs::write(folder.join(&name), &console).with_context(|| format!("writing {name}"))?;
        said = console;
        if verdict::has_booted(&said) {
            break;
        }
    }
    Ok(said)
}

fn machine(kernel: &Kernel, boot: &Boot, work: Work, image: &Path, initramfs: &Path) -> Command {
    let modes: Vec<&str> = boot.modes.iter().copied().filter(|mode| kernel.lack_of(mode).is_none()).collect();
    let command_line = format!(
        "console={} quiet panic=-1 mitigations=off {} spanlet.modes={} spanlet.speed={REPLAY_SPEED} \
         spanlet.delay={OTLP_DELAY_SECONDS} spanlet.recording={RECORDING} spanlet.work={}",
        kernel.architecture.console(),
        boot.options,
        modes.join(","),
        work.name(),
    );
    let mut machine = kernel.architecture.machine();
    match work {
        Work::Replay => machine.args(["-smp", "2"]),
        // An instruction is a nanosecond, and sleep takes no time.
        Work::Cost => machine.args(["-smp", "1", "-icount", "shift=0,sleep=off"]),
    };
    machine.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).args(["-append", &command_line]);
    let mut timeout = Command::new("timeout");
    timeout.arg(TIMEOUT_SECONDS.to_string()).arg(machine.get_program()).args(machine.get_args());
    timeout
}

// === impl Work ===

impl Work {
    /// As the guest's script knows it.
    const fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Cost => "cost",
        }
    }
}
