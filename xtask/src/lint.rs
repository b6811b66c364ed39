//! `cargo xtask lint`: format, lints, architecture, licences and bans.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{self, Need, Ready, Toolchain};
use crate::{arch, build, sh};

/// Where `cargo deny` takes known vulnerabilities from.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";
/// Seconds after which the advisories count as out of reach.
const ADVISORIES_TIMEOUT: &str = "20";

pub(crate) fn run() -> Result<()> {
    let ready = setup::ensure(&[Need::KernelPrograms, Need::Lint])?;
    // All of them, so that one run tells everything.
    let checks: [(&str, Result<()>); 5] = [
        ("format", format()),
        ("architecture", arch::run()),
        ("clippy", build::kernel_programs(ready).and_then(|()| clippy())),
        ("kernel programs", clippy_of_programs(ready)),
        ("licences, bans and sources", deny()),
    ];
    let mut failed = Vec::new();
    for (name, result) in checks {
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("found fault with: {}", failed.join("; ")) }
}

fn format() -> Result<()> {
    sh::step("Checking the format", sh::cargo().args(["fmt", "--all", "--", "--check"]))?;
    let mut programs = sh::cargo();
    programs.current_dir(build::programs_dir()).args(["fmt", "--", "--check"]);
    sh::step("Checking the format of the kernel programs", &mut programs)?;
    let mut targets = sh::cargo();
    targets.current_dir(sh::root().join("tests/fuzz")).args(["fmt", "--", "--check"]);
    sh::step("Checking the format of the fuzz targets", &mut targets)?;
    Ok(())
}

fn clippy() -> Result<()> {
    let mut workspace = sh::cargo();
    workspace.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    sh::step("Running clippy", &mut workspace)?;
    Ok(())
}

fn clippy_of_programs(ready: Ready) -> Result<()> {
    let mut programs = build::programs_cargo(ready);
    match ready.toolchain {
        Toolchain::Debian => {
            // What `cargo clippy` does, with the clippy that belongs to the compiler for BPF.
            programs.arg("check").env("RUSTC_WORKSPACE_WRAPPER", "/usr/bin/clippy-driver");
            programs.env("CLIPPY_ARGS", "--deny__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
        }
        Toolchain::Nightly => {
            programs.args(["rustc", "--release"]);
        }
    }
    programs.arg("--locked").args(build::target_arguments(ready));
    if ready.toolchain == Toolchain::Nightly {
        programs.args(["--", "--deny", "warnings"]);
    }
    sh::step("Linting the kernel programs", &mut programs)?;
    Ok(())
}

/// Licences and sources of all that is compiled; of the agent itself also that nothing is in it twice.
fn deny() -> Result<()> {
    let mut checks = vec!["licenses", "sources"];
    if advisories_in_reach() {
        checks.push("advisories");
    } else {
        sh::note(&format!("skipped: known vulnerabilities, as {ADVISORIES} is out of reach"));
    }
    let root = sh::root();
    for (whose, manifest) in [("the workspace", &root), ("the kernel programs", &build::programs_dir())] {
        let title = format!("Checking {} of {whose}", checks.join(", "));
        sh::step(&title, cargo_deny(&manifest.join("Cargo.toml")).arg("check").args(&checks))?;
    }
    let mut agent = cargo_deny(&root.join("agent/Cargo.toml"));
    sh::step("Checking bans of the agent", agent.args(["--exclude-dev", "check", "bans"]))?;
    Ok(())
}

fn cargo_deny(manifest: &Path) -> Command {
    let mut deny = setup::with_tools(Command::new("cargo-deny"));
    deny.args(["--locked", "--config"]).arg(sh::root().join("deny.toml")).arg("--manifest-path").arg(manifest);
    deny
}

fn advisories_in_reach() -> bool {
    let ask = ["GIT_TERMINAL_PROMPT=0", "timeout", ADVISORIES_TIMEOUT, "git", "ls-remote", ADVISORIES, "HEAD"];
    sh::probe("env", &ask).is_some()
}
