//! Installs Debian packages so that none of the machine's own is removed, which apt itself would do without asking.
//!
//! A machine can have a package that is newer than its sources, and conflicts with what they have; then that part comes from
//! the release's backports, where new versions for an old release are.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::debian::{Mirror, PrivateApt, Suites};
use super::service;
use crate::sh;

/// How long apt waits for another package manager, in seconds; it says whom it waits for.
const APT_LOCK_SECONDS: &str = "DPkg::Lock::Timeout=900";
/// How long to wait for another refresh of the package lists, for which apt itself does not wait.
const LISTS_LOCK: Duration = Duration::from_secs(900);
/// How often that lock is tried.
const LISTS_LOCK_PERIOD: Duration = Duration::from_secs(5);
/// The one package that may go away: Debian's dynamic busybox makes place for the static one, which does the same.
const REPLACEABLE: &str = "busybox";
const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

pub(super) fn install(packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| package.ends_with(":arm64")) {
        let mut add = Command::new("dpkg");
        sh::step("Letting dpkg know of arm64", add.args(["--add-architecture", "arm64"]))?;
    }
    let services = service::keep_services_stopped(packages)?;
    refresh_lists()?;
    let removed = removed_by(packages, None)?;
    if removed.is_empty() {
        install_from(packages, None)?;
    } else {
        install_beside(packages, &removed.join(", "))?;
    }
    services.leave_out_of_boot();
    Ok(())
}

/// Installs what conflicts with `removed` packages of the machine from backports. All is simulated first, so that nothing is installed
/// halfway.
fn install_beside(packages: &[&str], removed: &str) -> Result<()> {
    let refusal = || {
        let names = packages.join(" ");
        format!("installing {names} would remove {removed}; please decide yourself and install them")
    };
    let (conflicting, others) = partition(packages, removes_alone).with_context(refusal)?;
    ensure!(!conflicting.is_empty(), refusal());
    let backports = Backports::open().with_context(refusal)?;
    for (part, from) in [(&others, None), (&conflicting, Some(&backports))] {
        ensure!(removed_by(part, from).with_context(refusal)?.is_empty(), refusal());
    }
    let (names, suite) = (conflicting.join(", "), &backports.suite);
    sh::note(&format!("{names}: from {suite}, as those of this machine's apt sources would remove {removed}"));
    install_from(&others, None)?;
    install_from(&conflicting, Some(&backports))?;
    backports.apt.remove()
}

/// The packages that `conflicts` is true of, and the others.
fn partition<'a>(
    packages: &[&'a str],
    conflicts: impl Fn(&str) -> Result<bool>,
) -> Result<(Vec<&'a str>, Vec<&'a str>)> {
    let (mut conflicting, mut others) = (Vec::new(), Vec::new());
    for package in packages {
        let part = if conflicts(package)? { &mut conflicting } else { &mut others };
        part.push(*package);
    }
    Ok((conflicting, others))
}

/// Whether the package of the machine's sources would remove others by itself.
fn removes_alone(package: &str) -> Result<bool> {
    let simulation = sh::probe("apt-get", &[&["--simulate"], &INSTALL[..], &[package]].concat());
    let simulation = simulation.with_context(|| format!("simulating the installation of {package}"))?;
    Ok(!removed_packages(&simulation).is_empty())
}

/// The machine's release with its backports.
#[derive(Debug)]
struct Backports {
    apt: PrivateApt,
    suite: String,
}

impl Backports {
    fn open() -> Result<Self> {
        let mirror = Mirror::of_this_machine()?;
        let codename = mirror.codename.as_str();
        let [updates, security, suite] =
            ["updates", "security", "backports"].map(|suffix| format!("{codename}-{suffix}"));
        let suites = Suites { main: &[codename, &updates, &suite], security: &[&security] };
        let folder = sh::target_dir().join("setup/apt");
        let apt = PrivateApt::open(&folder, &format!("Fetching lists of {suite}"), &mirror, &suites, "")?;
        Ok(Self { apt, suite })
    }
}

fn removed_by(packages: &[&str], backports: Option<&Backports>) -> Result<Vec<String>> {
    let title = format!("Checking what apt would do to install {}", packages.join(" "));
    let simulation = sh::step(&title, apt_install(backports).arg("--simulate").args(packages))?;
    Ok(removed_packages(&simulation).into_iter().map(str::to_owned).collect())
}

fn install_from(packages: &[&str], backports: Option<&Backports>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let title = format!("Installing with apt: {}", packages.join(" "));
    sh::step(&title, apt_install(backports).args(packages)).map(drop)
}

/// apt prefers what is in backports, dependencies too, only where it is told to; that nothing is removed was simulated before
/// the other packages came.
fn apt_install(backports: Option<&Backports>) -> Command {
    let mut command = apt(backports.map_or_else(|| Command::new("apt-get"), |from| from.apt.command("apt-get")));
    command.args(INSTALL);
    if let Some(Backports { suite, .. }) = backports {
        command.args(["--target-release", suite, "--no-remove"]);
    }
    command
}

/// A list that cannot be refreshed (another vendor's repository is down, say) need not hinder the installation.
fn refresh_lists() -> Result<()> {
    sh::heading("Refreshing the package lists");
    let started = Instant::now();
    loop {
        let mut update = apt(Command::new("apt-get"));
        let output = update.arg("update").stdin(Stdio::null()).output().context("starting apt-get update")?;
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

/// apt that asks nothing.
fn apt(mut command: Command) -> Command {
    command.args(["-o", APT_LOCK_SECONDS]).env("DEBIAN_FRONTEND", "noninteractive").env_remove("LD_LIBRARY_PATH");
    command
}

/// The packages that a simulated installation removes and that nothing replaces.
fn removed_packages(simulation: &str) -> Vec<&str> {
    let removed = simulation.lines().filter_map(|line| line.strip_prefix("Remv ")?.split_whitespace().next());
    removed.filter(|name| *name != REPLACEABLE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_read_from_a_simulation() {
        let table: [(&str, &[&str]); 3] = [
            ("Inst busybox-static (1:1.35.0-4 Debian)\n", &[]),
            ("Remv busybox [1:1.35.0-4]\nInst busybox-static (1:1.35.0-4 Debian)\n", &[]),
            (
                "Reading package lists...\nThe following packages will be REMOVED:\n  busybox containerd.io\n\
                 Remv busybox [1:1.35.0-4]\nRemv containerd.io [1.7.29-1]\nRemv qemu-utils [1:10.0.2]\n",
                &["containerd.io", "qemu-utils"],
            ),
        ];
        for (simulation, expected) in table {
            assert_eq!(removed_packages(simulation), expected, "{simulation}");
        }
    }

    #[test]
    fn only_what_conflicts_is_taken_from_elsewhere() {
        let table: [(&[&str], &[&str], &[&str]); 3] = [
            (&["runc", "qemu-a", "g++", "qemu-b"], &["qemu-a", "qemu-b"], &["runc", "g++"]),
            (&["qemu-a"], &["qemu-a"], &[]),
            (&["runc"], &[], &["runc"]),
        ];
        for (packages, conflicting, others) in table {
            let parts = partition(packages, |package| Ok(package.starts_with("qemu"))).expect("nothing fails");
            assert_eq!(parts, (conflicting.to_vec(), others.to_vec()), "{packages:?}");
        }
        partition(&["runc"], |_| anyhow::bail!("apt fails")).expect_err("a failure is passed on");
    }
}
