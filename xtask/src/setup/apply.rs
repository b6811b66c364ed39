//! Installs what the plan says, step by step.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::plan::{BPF_LINKER_VERSION, CARGO_DENY_VERSION, CARGO_FUZZ_VERSION, LLVM_MAJOR, Step};
use super::{packages, tools_dir};
use crate::sh;

pub(super) fn apply(steps: &[Step]) -> Result<()> {
    for step in steps {
        match step {
            Step::Apt { packages } => packages::install(packages)?,
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
