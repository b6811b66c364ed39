//! `cargo xtask vm`: the recording of a real kubelet, replayed on other kernels in each attach mode, under QEMU.
//!
//! ```text
//! kernels ─► archive ─► image ──┐
//!            (apt)              ├─► boot ─► console ─► verdict ─► "6.12 fentry ok"
//! agent, node, recording ─► guest ─┘
//! ```
//! Nothing is virtualised by hardware: QEMU translates every instruction, so that this runs on machines without KVM.

mod architecture;
mod archive;
mod boot;
mod cost;
mod fleet;
mod guest;
mod instructions;
mod kernels;
mod verdict;

use std::cmp::Reverse;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{build, sh};
use architecture::Architecture;
use archive::Archive;
use boot::Work;
use fleet::Machine;
use instructions::Instructions;
use kernels::{Boot, KERNELS, Kernel};
use verdict::Replay;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to boot, as in `6.12`; default: all
    #[arg(value_name = "KERNEL", value_parser = kernels::NAMES)]
    kernels: Vec<String>,
    /// Add kernels that are not supported yet, and other architectures
    #[arg(long)]
    long: bool,
    /// Write down the verifier's work with each program instead of comparing it
    #[arg(long)]
    record: bool,
    /// Count the instructions that probes add, instead of replaying
    #[arg(long, conflicts_with = "record")]
    cost: bool,
}

impl Arguments {
    fn asks_for(&self, kernel: &Kernel) -> bool {
        if self.kernels.is_empty() {
            self.long || !kernel.long
        } else {
            self.kernels.iter().any(|name| name == kernel.name)
        }
    }
}

/// Boots every kernel that was asked for; fails when a line says `FAIL`, or something needed cannot be had.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let kernels = || KERNELS.iter().filter(|kernel| arguments.asks_for(kernel));
    let mut needs = vec![Need::KernelPrograms, Need::VirtualMachines];
    if kernels().any(|kernel| kernel.architecture == Architecture::Arm64) {
        needs.push(Need::Arm64);
    }
    let ready = setup::ensure(&needs)?;
    build::kernel_programs(ready)?;
    let archive = Archive::open(&folder())?;
    let images: Vec<_> = kernels().map(|kernel| archive.image(kernel)).collect::<Result<_>>()?;
    let work = if arguments.cost { Work::Cost } else { Work::Replay };
    let mut guests = Vec::new();
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        if kernels().any(|kernel| kernel.architecture == architecture) {
            let programs = architecture.programs(&archive, work.programs())?;
            guests.push((architecture, guest::initramfs(&folder(), architecture, &programs)?));
        }
    }
    let mut judge = Judge {
        instructions: if arguments.record { Instructions::open().unwrap_or_default() } else { Instructions::open()? },
        is_recording: arguments.record,
        calls_digest: None,
        lines: Vec::new(),
    };
    let mut machines = Vec::new();
    for (kernel, image) in kernels().zip(images) {
        let guest = guests.iter().find(|(architecture, _)| *architecture == kernel.architecture);
        let (_, initramfs) = guest.expect("a guest was made for every architecture that is asked for");
        let of_boot = |boot| Machine { kernel, boot, image: image.clone(), initramfs };
        machines.extend(kernel.boots.iter().map(of_boot));
    }
    // The longest first, so that none is alone at the end.
    machines.sort_by_key(|machine| Reverse(machine.boot.modes.len()));
    fleet::boot_all(machines, work, &folder(), |machine, console| match work {
        Work::Replay => {
            judge.boot(machine.kernel, machine.boot, console);
            Ok(())
        }
        Work::Cost => cost::report(machine.kernel, machine.boot, console).map_err(anyhow::Error::msg),
    })?;
    if arguments.cost {
        return Ok(());
    }
    if arguments.record {
        judge.instructions.save()?;
    }
    report(&judge.lines, started.elapsed().as_secs())
}

/// Kernels, package lists, the guest and what was said on consoles; nothing in it is needed again after a release.
fn folder() -> PathBuf {
    sh::target_dir().join("vm")
}

/// Judges replays, each by itself and against the others.
#[derive(Debug)]
struct Judge {
    instructions: Instructions,
    is_recording: bool,
    /// Of the first good replay: every kernel and mode must tell the same of the same calls.
    calls_digest: Option<String>,
    /// A line for each replay, its storm and ways, and the execs of each boot, and whether it failed.
    lines: Vec<(String, bool)>,
}

impl Judge {
    /// Prints a line for each mode at once, as the next boot takes its time.
    fn boot(&mut self, kernel: &Kernel, boot: &Boot, console: &str) {
        for mode in boot.modes {
            if let Some(why) = kernel.lack_of(mode) {
                let line = format!("{} {mode} skip: {why}", boot.title(kernel));
                println!("{line}");
                self.lines.push((line, false));
                continue;
            }
            let verdict = verdict::of(mode, console).and_then(|replay| self.compare(kernel, mode, &replay));
            let title = format!("{} {mode}", boot.title(kernel));
            self.line(&title, &verdict.map(|()| String::new()));
            self.line(&format!("storm {title}"), &verdict::of_storm(mode, console));
            self.line(&format!("ways {title}"), &verdict::of_ways(mode, console).map(|()| String::new()));
        }
        self.line(&format!("execs {}", boot.title(kernel)), &verdict::of_execs(console).map(|()| String::new()));
    }

    fn line(&mut self, what: &str, verdict: &Result<String, String>) {
        let line = match verdict {
            Ok(told) if told.is_empty() => format!("{what} ok"),
            Ok(told) => format!("{what} ok: {told}"),
            Err(why) => format!("{what} FAIL: {why}"),
        };
        println!("{line}");
        self.lines.push((line, verdict.is_err()));
    }

    fn compare(&mut self, kernel: &Kernel, mode: &str, replay: &Replay) -> Result<(), String> {
        let first = self.calls_digest.get_or_insert_with(|| replay.calls_digest.clone());
        if *first != replay.calls_digest {
            return Err("its records of the calls differ from those of the first replay".to_owned());
        }
        if self.is_recording {
            self.instructions.record(kernel.name, mode, &replay.programs);
            return Ok(());
        }
        self.instructions.compare(kernel.name, mode, &replay.programs)
    }
}

fn report(lines: &[(String, bool)], seconds: u64) -> Result<()> {
    let failed = lines.iter().filter(|(_, failed)| *failed).count();
    sh::heading(&format!("{} of {} passed in {seconds} s", lines.len() - failed, lines.len()));
    lines.iter().for_each(|(line, _)| sh::note(line));
    if failed > 0 {
        bail!("{failed} failed; what the consoles said is in {}", folder().display());
    }
    Ok(())
}
