//! `cargo xtask demo` and `cargo xtask replay`: make ready, build, then become `spanlet-node`, which does the work.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{build, sh};

/// Runs `spanlet-node COMMAND ARGUMENTS…`; returns only if that cannot be started.
pub(crate) fn run(command: &str, arguments: &[String]) -> Result<()> {
    // A recording is played without a container runtime.
    let needs_runtime = command == "demo" && !arguments.iter().any(|argument| argument == "--replay");
    let needs: &[Need] = if needs_runtime { &[Need::KernelPrograms, Need::Runtime] } else { &[Need::KernelPrograms] };
    let ready = setup::ensure(needs)?;
    build::kernel_programs(ready)?;
    let mut cargo = sh::cargo();
    cargo.args(["build", "--locked", "--package", "spanlet", "--package", "spanlet-node"]);
    sh::step("Building the agent and the node it runs on", &mut cargo)?;
    let program = sh::target_dir().join("debug/spanlet-node");
    Err(sh::hand_over(std::process::Command::new(program).arg(command).args(arguments)))
}
