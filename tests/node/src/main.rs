//! `spanlet-node`: arguments → replay, demo or one side of a replay → exit code.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use spanlet_node::demo::{self, Demo};
use spanlet_node::{execs, interruptible, replay, stopped, upstream};

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
        #[arg(long, value_enum, default_value = "human")]
        output: Output,
    },
    /// Run a pod on a real containerd (or replay one) beside spanlet, and print where its start spent its time
    Demo(demo::Options),
    /// Stand for a runtime, start processes, and compare what an agent saw of them
    Execs(execs::Options),
    /// Run an OTLP/gRPC backend that accepts, refuses or dies as standard input says
    Upstream(upstream::Options),
    /// One side of a replay; started by `replay`
    #[command(hide = true)]
    ReplaySide(replay::SideArguments),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
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
        Command::Demo(options) => block_on(run_demo(options)),
        Command::Execs(options) => block_on(async move {
            interruptible(execs::check(&options.capture_mode)).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Upstream(options) => block_on(async move {
            interruptible(upstream::serve(&options)).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::ReplaySide(arguments) => replay::play(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

async fn run_replay(options: replay::Options, output: Output) -> Result<ExitCode> {
    let summary = interruptible(replay::run(&options, &mut |line| eprintln!("{line}"))).await?;
    match output {
        Output::Human => println!("{summary}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&summary)?),
    }
    Ok(if summary.balances() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_demo(options: demo::Options) -> Result<ExitCode> {
    let demo = interruptible(Demo::show(options)).await?;
    if options.keep {
        println!("{}", demo.directions());
        stopped().await?;
    }
    interruptible(demo.end()).await?;
    Ok(ExitCode::SUCCESS)
}
