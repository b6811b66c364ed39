//! The command line: one file a command.

pub mod completions;
pub mod config;
pub mod run;

use std::io;

use clap::{Parser, Subcommand};

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
}

/// Runs every command but [`Command::Run`], which needs the whole agent and belongs to `main`.
///
/// # Errors
/// What went wrong; [`Error::exit_code`] says how to exit.
pub fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(_) => unreachable!("main runs the agent itself"),
        Command::Config(command) => config::execute(&command, &mut io::stdout().lock()),
        Command::Completions(arguments) => completions::execute(&arguments, &mut io::stdout().lock()),
    }
}

// === impl Error ===

impl Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => USAGE,
            Self::Output(_) => FAILED,
        }
    }
}
