//! `cargo xtask vm`: the recording of a real kubelet, replayed on other kernels in each attach mode, under QEMU.
//!
//! ```text
//! kernels ─► archive ─► image ──┐
//!            (apt)              ├─► boot ─► console ─► verdict ─► "6.12 fentry ok"
//! agent, node, recording ─► guest ─┘
//! ```
//! Nothing is virtualised by hardware: QEMU translates every instruction, so that this runs on machines without KVM.

mod archive;
mod boot;
mod guest;
mod kernels;
mod verdict;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{build, sh};
use archive::Archive;
use kernels::{Boot, KERNELS, Kernel};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to boot, as in `6.12`; default: all
    #[arg(value_name = "KERNEL", value_parser = kernels::NAMES)]
    kernels: Vec<String>,
    /// Add boots that can preempt a task anywhere, and kernels that are not supported yet
    #[arg(long)]
    long: bool,
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
    let ready = setup::ensure(&[Need::KernelPrograms, Need::VirtualMachines])?;
    build::kernel_programs(ready)?;
    let mut cargo = sh::cargo();
    cargo.args(["build", "--locked", "--package", "spanlet", "--package", "spanlet-node"]);
    sh::step("Building the agent and the node it runs on", &mut cargo)?;
    let initramfs = guest::initramfs(&folder())?;
    let archive = Archive::open(&folder())?;
    let mut lines = Vec::new();
    for kernel in KERNELS.iter().filter(|kernel| arguments.asks_for(kernel)) {
        let image = archive.image(kernel)?;
        for boot in kernel.boots.iter().filter(|boot| arguments.long || !boot.long) {
            let console = boot::run(kernel, boot, &image, &initramfs, &folder())?;
            lines.extend(judge(kernel, boot, &console));
        }
    }
    report(&lines, started.elapsed().as_secs())
}

/// Kernels, package lists, the guest and what was said on consoles; nothing in it is needed again after a release.
fn folder() -> PathBuf {
    sh::target_dir().join("vm")
}

/// One line for each mode, and whether it failed; printed at once, as the next boot takes its time.
fn judge(kernel: &Kernel, boot: &Boot, console: &str) -> Vec<(String, bool)> {
    let mut lines = Vec::new();
    for mode in boot.modes {
        let verdict = verdict::of(mode, console);
        let said = verdict.as_ref().map_or_else(|why| format!("FAIL: {why}"), |()| "ok".to_owned());
        let line = format!("{} {mode} {said}", boot.title(kernel));
        println!("{line}");
        lines.push((line, verdict.is_err()));
    }
    lines
}

fn report(lines: &[(String, bool)], seconds: u64) -> Result<()> {
    let failed = lines.iter().filter(|(_, failed)| *failed).count();
    sh::heading(&format!("{} of {} replays passed in {seconds} s", lines.len() - failed, lines.len()));
    lines.iter().for_each(|(line, _)| sh::note(line));
    if failed > 0 {
        bail!("{failed} replays failed; what the consoles said is in {}", folder().display());
    }
    Ok(())
}
