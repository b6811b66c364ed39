//! `cargo xtask build`: the kernel programs first, as the agent's build takes their object in, then the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, Need, Ready, Toolchain};
use crate::sh;

/// The target of kernel programs: little endian, no operating system.
const BPF_TARGET: &str = "bpfel-unknown-none";
/// BTF is what the loader reads map definitions from, and is made from debug information.
const BPF_RUSTFLAGS: &str = "-C debuginfo=2 -C link-arg=--btf";

const ARM64_TARGET: &str = "aarch64-unknown-linux-gnu";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Build the agent with optimisations.
    #[arg(long)]
    release: bool,
}

/// Builds everything that the agent consists of.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ready = setup::ensure(&[Need::KernelPrograms])?;
    kernel_programs(ready)?;
    let mut build = sh::cargo();
    build.args(["build", "--locked", "--package", "spanlet"]);
    if arguments.release {
        build.arg("--release");
    }
    sh::step("Building the agent", &mut build)?;
    let profile = if arguments.release { "release" } else { "debug" };
    sh::note(&format!("{}", sh::target_dir().join(profile).join("spanlet").display()));
    Ok(())
}

/// Builds programs of the workspace for arm64, linked statically, and returns the folder where they are. Debian's compiler does
/// it: its libraries for other architectures come with apt.
pub(crate) fn for_arm64(packages: &[&str]) -> Result<PathBuf> {
    let mut build = sh::cargo();
    build.args(["build", "--locked", "--target", ARM64_TARGET]);
    for package in packages {
        build.args(["--package", package]);
    }
    build.env("RUSTC", "/usr/bin/rustc").env("RUSTFLAGS", "-C target-feature=+crt-static");
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    sh::step("Building the agent and the node it runs on for arm64", &mut build)?;
    Ok(sh::target_dir().join(ARM64_TARGET).join("debug"))
}

/// Builds the kernel programs and puts the object where `agent/build.rs` takes it from.
pub(crate) fn kernel_programs(ready: Ready) -> Result<()> {
    let mut build = programs_cargo(ready);
    build.args(["build", "--locked", "--release"]).args(target_arguments(ready));
    sh::step("Building the kernel programs", &mut build)?;
    let built = programs_target_dir().join(BPF_TARGET).join("release/spanlet");
    install_object(&built, &object_path())
}

/// A cargo that works in the kernel programs' crate with the compiler for BPF.
pub(crate) fn programs_cargo(ready: Ready) -> Command {
    let mut cargo = match ready.toolchain {
        Toolchain::Debian => {
            let mut cargo = setup::with_tools(sh::cargo());
            // RUSTC_BOOTSTRAP: BPF needs unstable features, which Debian's stable compiler has, locked.
            cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            cargo
        }
        Toolchain::Nightly => {
            let mut rustup = setup::with_tools(Command::new("rustup"));
            rustup.args(["run", "nightly", "cargo"]).env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
            rustup
        }
    };
    cargo.current_dir(programs_dir()).env("RUSTFLAGS", BPF_RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

/// What `build` and `check` of the kernel programs take besides their own arguments.
pub(crate) fn target_arguments(ready: Ready) -> Vec<String> {
    let target_dir = programs_target_dir().display().to_string();
    let mut arguments = vec!["--target".to_owned(), BPF_TARGET.to_owned(), "--target-dir".to_owned(), target_dir];
    if ready.toolchain == Toolchain::Nightly {
        arguments.extend(["-Z".to_owned(), "build-std=core".to_owned()]);
    }
    arguments
}

pub(crate) fn programs_dir() -> PathBuf {
    sh::root().join("ebpf/programs")
}

/// Apart from the workspace's builds, which another compiler makes.
fn programs_target_dir() -> PathBuf {
    sh::target_dir().join("ebpf")
}

fn object_path() -> PathBuf {
    sh::target_dir().join("bpf/spanlet.o")
}

/// Copies the object unless it is the same: a newer file would make cargo build the agent again.
fn install_object(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = object.parent().expect("the object lies in a folder of the target folder");
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(object, bytes).with_context(|| format!("writing {}", object.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (built, object) = (folder.path().join("built"), folder.path().join("bpf/spanlet.o"));
        fs::write(&built, "one")?;
        install_object(&built, &object)?;
        let first = fs::metadata(&object)?.modified()?;
        install_object(&built, &object)?;
        assert_eq!(fs::metadata(&object)?.modified()?, first);
        fs::write(&built, "two")?;
        install_object(&built, &object)?;
        assert_eq!(fs::read_to_string(&object)?, "two");
        Ok(())
    }
}
