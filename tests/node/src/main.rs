//! `spanlet-node`: arguments → replay, demo or one side of a replay → exit code.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use spanlet_node::replay;

/// A node for tests of spanlet: real or recorded.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a recording again past the probes of a fresh agent
    Replay {
        #[command(flatten)]
        options: replay::Options,
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// One side of a replay; started by `replay`
    #[command(hide = true)]
    ReplaySide(replay::SideArguments),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Replay { options, output } => block_on(run_replay(options, output)),
        Command::ReplaySide(arguments) => replay::play(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

async fn run_replay(options: replay::Options, output: Output) -> Result<ExitCode> {
    let summary = spanlet_node::interruptible(replay::run(&options, &mut |line| eprintln!("{line}"))).await?;
    match output {
        Output::Text => println!("{summary}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&summary)?),
    }
    Ok(if summary.balances() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
