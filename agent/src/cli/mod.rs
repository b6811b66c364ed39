//! The command line: one file a command.

pub mod calls;
pub mod client;
pub mod completions;
pub mod config;
pub mod pod;
pub mod pods;
pub mod render;
pub mod run;
pub mod top;

pub use client::Failure;

use std::io;

use clap::{Parser, Subcommand};

use self::render::Terminal;
use crate::config::ConfigError;

/// Exit code: something went wrong.
pub const FAILED: u8 = 1;
/// Exit code: bad usage or bad configuration (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;
/// Exit code: something that is needed is not available, a port say (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;

/// Receives, joins and forwards the spans of kubelet, the container runtime and kube-apiserver on a node.
#[derive(Debug, Parser)]
#[command(name = "spanlet", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent until SIGTERM or SIGINT.
    Run(run::Arguments),
    /// The pods that started on this node, newest first.
    Pods(pods::Args),
    /// Where the time of a pod's start went.
    Pod(pod::Args),
    /// Recent gRPC calls on the node's sockets.
    Calls(calls::Args),
    /// The methods that take longest now.
    Top(top::Args),
    /// Check a configuration, or print the default one.
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("write to standard output")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Look(#[from] Failure),
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
}

/// Runs every command but [`Command::Run`], which needs the whole agent and belongs to `main`.
///
/// # Errors
/// What went wrong; [`Error::exit_code`] says how to exit.
pub fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(_) => unreachable!("main runs the agent itself"),
        Command::Pods(_) | Command::Pod(_) | Command::Calls(_) | Command::Top(_) => look(&command),
        Command::Config(command) => config::execute(&command, &mut io::stdout().lock()),
        Command::Completions(arguments) => completions::execute(&arguments, &mut io::stdout().lock()),
    }
}

/// The commands that look into the running agent of this node.
fn look(command: &Command) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let terminal = Terminal::detect();
    let out = &mut io::stdout().lock();
    let done = runtime.block_on(async {
        match command {
            Command::Pods(args) => pods::run(args, &terminal, out).await,
            Command::Pod(args) => pod::run(args, &terminal, out).await,
            Command::Calls(args) => calls::run(args, &terminal, out).await,
            Command::Top(args) => top::run(args, &terminal, out).await,
            Command::Run(_) | Command::Config(_) | Command::Completions(_) => Ok(()),
        }
    });
    Ok(done?)
}

// === impl Error ===

impl Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => USAGE,
            Self::Output(_) | Self::Runtime(_) => FAILED,
            Self::Look(failure) => failure.exit_code(),
        }
    }
}
