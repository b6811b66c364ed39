//! Every command that a developer or CI runs: `cargo xtask COMMAND`.

mod arch;
mod build;
mod ci;
mod fuzz;
mod lint;
mod node;
mod setup;
mod sh;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Exit code of bad usage (`EX_USAGE` of sysexits.h).
const BAD_USAGE: u8 = 64;
/// Exit code when something needed is not there (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Every command that a developer or CI runs.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a container runtime, the agent and a stand-in kubelet, run a pod and print its timeline
    Demo(PassedOn),
    /// Re-enact a recording of a real kubelet past the agent's live probes
    Replay(PassedOn),
    /// Run every test that this machine can run
    Test(test::Arguments),
    /// Look for inputs that break the readers of frames, headers, connections and kernel events
    Fuzz(fuzz::Arguments),
    /// Check format, lints, architecture, licences and bans
    Lint,
    /// Replay a recorded kubelet on other kernels, each in a virtual machine
    Vm(vm::Arguments),
    /// What CI runs: lint, test and vm
    Ci,
    /// Build the kernel programs and the agent
    Build(build::Arguments),
    /// Check who imports whom, sizes, and where unsafe code and environment variables are
    Arch,
    /// Install what the other commands need
    Setup,
}

/// Arguments of `spanlet-node`, which explains them with `--help`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct PassedOn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(BAD_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let unavailable = error.is::<setup::Unavailable>();
            if unavailable { ExitCode::from(UNAVAILABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(passed) => node::run("demo", &passed.arguments),
        Command::Replay(passed) => node::run("replay", &passed.arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Lint => lint::run(),
        Command::Vm(arguments) => vm::run(&arguments),
        Command::Ci => ci::run(),
        Command::Build(arguments) => build::run(&arguments),
        Command::Arch => arch::run(),
        Command::Setup => setup::ensure(&setup::Need::ALL).map(drop),
    }
}
