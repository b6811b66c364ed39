//! Installs what the plan says, step by step.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::plan::{BPF_LINKER_VERSION, CARGO_DENY_VERSION, CARGO_FUZZ_VERSION, LLVM_MAJOR, Step};
use super::{service, tools_dir};
use crate::sh;

/// How long apt waits for another package manager, in seconds; it says whom it waits for.
const APT_LOCK_SECONDS: &str = "DPkg::Lock::Timeout=900";
/// How long to wait for another refresh of the package lists, for which apt itself does not wait.
const LISTS_LOCK: Duration = Duration::from_secs(900);
/// How often that lock is tried.
const LISTS_LOCK_PERIOD: Duration = Duration::from_secs(5);
/// The one package that may go away: Debian's dynamic busybox makes place for the static one, which does the same.
const REPLACEABLE: &str = "busybox";

pub(super) fn apply(steps: &[Step]) -> Result<()> {
    for step in steps {
        match step {
            Step::Apt { packages } => install_packages(packages)?,
            Step::NightlyWithSource => {
                let arguments = ["toolchain", "install", "nightly", "--profile", "minimal", "-c", "rust-src"];
                sh::step("Fetching a nightly rustc that can build core for BPF", rustup().args(arguments))?;
            }
            Step::BpfLinker { beside_users } => install_bpf_linker(*beside_users)?,
            Step::CargoDeny => install_cargo_deny()?,
            Step::CargoFuzz => {
                let mut install = sh::cargo();
                install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ_VERSION]);
                sh::step(&format!("Building cargo-fuzz {CARGO_FUZZ_VERSION} (about a minute)"), &mut install)?;
            }
            Step::RustLinters => {
                let mut add = Command::new("rustup"); // for the toolchain in use, which RUSTUP_TOOLCHAIN names
                sh::step("Fetching rustfmt and clippy", add.args(["component", "add", "rustfmt", "clippy"]))?;
            }
        }
    }
    Ok(())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| package.ends_with(":arm64")) {
        let mut add = Command::new("dpkg");
        sh::step("Letting dpkg know of arm64", add.args(["--add-architecture", "arm64"]))?;
    }
    let services = service::keep_services_stopped(packages)?;
    refresh_lists()?;
    let arguments = ["install", "--yes", "--no-install-recommends"];
    let names = packages.join(" ");
    let title = format!("Checking what apt would do to install {names}");
    let simulation = sh::step(&title, apt().arg("--simulate").args(arguments).args(packages))?;
    let removed: Vec<_> = removed_packages(&simulation).filter(|name| *name != REPLACEABLE).collect();
    if !removed.is_empty() {
        bail!("installing {names} would remove {}; please decide yourself and install them", removed.join(", "));
    }
    sh::step(&format!("Installing with apt: {names}"), apt().args(arguments).args(packages))?;
    services.leave_out_of_boot();
    Ok(())
}

/// A list that cannot be refreshed (another vendor's repository is down, say) need not hinder the installation.
fn refresh_lists() -> Result<()> {
    sh::heading("Refreshing the package lists");
    let started = Instant::now();
    loop {
        let output = apt().arg("update").stdin(Stdio::null()).output().context("starting apt-get update")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        match errors.lines().find(|line| line.contains("Could not get lock")) {
            Some(who) if started.elapsed() < LISTS_LOCK => sh::note(&format!("waiting: {who}")),
            _ if output.status.success() => return Ok(()),
            _ => {
                sh::note(&format!("going on with the lists that are there:\n{}", errors.trim_end()));
                return Ok(());
            }
        }
        thread::sleep(LISTS_LOCK_PERIOD);
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", APT_LOCK_SECONDS]).env("DEBIAN_FRONTEND", "noninteractive").env_remove("LD_LIBRARY_PATH");
    command
}

/// The packages that a simulated installation removes.
fn removed_packages(simulation: &str) -> impl Iterator<Item = &str> {
    simulation.lines().filter_map(|line| line.strip_prefix("Remv ")?.split_whitespace().next())
}

fn rustup() -> Command {
    let mut command = Command::new("rustup");
    command.env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn install_bpf_linker(beside_users: bool) -> Result<()> {
    check_llvm()?;
    let mut install = sh::cargo();
    install.args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER_VERSION, "--no-default-features"]);
    install.args(["--features", &format!("llvm-{LLVM_MAJOR}")]);
    if beside_users {
        install.arg("--root").arg(tools_dir());
    }
    install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM_MAJOR}"));
    sh::step(&format!("Building bpf-linker {BPF_LINKER_VERSION} (about a minute)"), &mut install)?;
    Ok(())
}

/// The linker must know the bitcode of the compiler, so both must be of one LLVM.
fn check_llvm() -> Result<()> {
    let version = sh::probe("/usr/bin/rustc", &["--version", "--verbose"]).context("/usr/bin/rustc does not run")?;
    if !version.contains(&format!("LLVM version: {LLVM_MAJOR}.")) {
        bail!(
            "Debian's rustc is not of LLVM {LLVM_MAJOR} any more; LLVM_MAJOR in xtask/src/setup/plan.rs must follow:\n{version}"
        );
    }
    Ok(())
}

fn install_cargo_deny() -> Result<()> {
    let mut install = sh::cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY_VERSION]);
    // Built a third as long this way, and what it checks takes it a second either way.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
    sh::step(&format!("Building cargo-deny {CARGO_DENY_VERSION} (one to three minutes)"), &mut install)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_read_from_a_simulation() {
        let simulation = "Reading package lists...\n\
            The following packages will be REMOVED:\n  busybox containerd.io\n\
            Remv busybox [1:1.35.0-4]\nRemv containerd.io [1.7.29-1]\nInst busybox-static (1:1.35.0-4 Debian)\n";
        assert_eq!(removed_packages(simulation).collect::<Vec<_>>(), ["busybox", "containerd.io"]);
    }
}
