//! The command line: one file a command. All but `run` look at a file or, through its admin address, at the running agent.

pub mod calls;
pub mod client;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod pod;
pub mod pods;
pub mod render;
pub mod run;
pub mod top;

use std::io;

use clap::{Parser, Subcommand};

pub use client::Failure;

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
    /// The methods whose calls took longest in the last minute.
    Top(top::Args),
    /// Check this machine: kernel, rights, probes, sockets, the running agent; and how to mend what is wrong.
    Doctor(doctor::Args),
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
    #[error(transparent)]
    Client(#[from] Failure),
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("{problems} of these things should be mended")]
    Unhealthy { problems: usize },
    #[error("write to standard output")]
    Output(#[from] io::Error),
}

/// Runs every command but [`Command::Run`], which needs the whole agent and belongs to `main`.
///
/// # Errors
/// What went wrong; [`Error::exit_code`] says how to exit.
pub fn execute(command: &Command) -> Result<(), Error> {
    let output = &mut io::stdout().lock();
    let done = match command {
        Command::Run(_) => unreachable!("main runs the agent itself"),
        Command::Pods(arguments) => ask(pods::run(arguments, &Terminal::of_stdout(), output)),
        Command::Pod(arguments) => ask(pod::run(arguments, &Terminal::of_stdout(), output)),
        Command::Calls(arguments) => ask(calls::run(arguments, &Terminal::of_stdout(), output)),
        Command::Top(arguments) => ask(top::run(arguments, &Terminal::of_stdout(), output)),
        Command::Doctor(arguments) => doctor::execute(arguments, &Terminal::of_stdout(), output),
        Command::Config(command) => config::execute(command, output),
        Command::Completions(arguments) => completions::execute(arguments, output),
    };
    match done {
        // A reader that has seen enough (`spanlet pods | head`) is no failure.
        Err(Error::Output(error) | Error::Client(Failure::Output(error)))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(())
        }
        done => done,
    }
}

fn ask(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(runtime.block_on(command)?)
}

// === impl Error ===

impl Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => USAGE,
            Self::Client(failure) => failure.exit_code(),
            Self::Runtime(_) | Self::Unhealthy { .. } | Self::Output(_) => FAILED,
        }
    }
}
