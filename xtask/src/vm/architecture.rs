//! What differs between the architectures that are booted.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::archive::Archive;
use crate::build;
use crate::sh;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Amd64,
    Arm64,
}

/// Where the guest's programs lie on this machine.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) busybox: PathBuf,
    pub(super) folder: PathBuf,
    /// In that folder; each is its package's name too.
    pub(super) names: &'static [&'static str],
}

/// What the machine's clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    Time,
    Instructions,
}

impl Architecture {
    /// As Debian names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Builds or fetches the guest's programs.
    pub(super) fn programs(self, archive: &Archive, names: &'static [&'static str]) -> Result<Programs> {
        match self {
            Self::Amd64 => {
                let mut cargo = sh::cargo();
                cargo.args(["build", "--locked"]);
                for name in names {
                    cargo.args(["--package", name]);
                }
                sh::step("Building the agent and the node it runs on", &mut cargo)?;
                Ok(Programs { busybox: "/usr/bin/busybox".into(), folder: sh::target_dir().join("debug"), names })
            }
            Self::Arm64 => {
                let folder = build::for_arm64(names)?;
                Ok(Programs { busybox: archive.machines_file("busybox-static:arm64", "bin/busybox")?, folder, names })
            }
        }
    }

    /// The machine, without its kernel. One thread for both processors: with one for each, this QEMU's kernels now and then
    /// trip over code that they patch.
    pub(super) fn machine(self, counts: Counts) -> Command {
        let mut command;
        match self {
            Self::Amd64 => {
                command = Command::new("qemu-system-x86_64");
                // Of a string instruction QEMU counts each byte, as no CPU does; without these features kernels copy by words.
                let cpu = if counts == Counts::Instructions { "max,-fsrm,-erms" } else { "max" };
                command.args(["-M", "q35", "-cpu", cpu]);
            }
            Self::Arm64 => {
                command = Command::new("qemu-system-aarch64");
                command.args(["-M", "virt", "-cpu", "cortex-a72"]);
            }
        }
        command.args(["-accel", "tcg,thread=single", "-m", "1G", "-nodefaults"]);
        command.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
        command
    }

    /// The program that takes out what only a debugger reads.
    pub(super) const fn strip(self) -> &'static str {
        match self {
            Self::Amd64 => "strip",
            Self::Arm64 => "aarch64-linux-gnu-strip",
        }
    }

    pub(super) fn is_linked_statically(self) -> bool {
        self == Self::Arm64
    }

    /// The serial console's device.
    pub(super) const fn console(self) -> &'static str {
        match self {
            Self::Amd64 => "ttyS0",
            Self::Arm64 => "ttyAMA0",
        }
    }
}
