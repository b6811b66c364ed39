//! `spanlet-node`: arguments → replay, demo or one side of a replay → exit code.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use spanlet_node::agent::ModeOption;
use spanlet_node::demo::{self, Demo};
use spanlet_node::{execs, interruptible, replay, stopped, storm, upstream, ways};

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
    /// Make calls of every kind past the probes of a fresh agent, and compare what it tells with what their client knows
    Storm {
        #[command(flatten)]
        options: storm::Options,
        #[arg(long, value_enum, default_value = "human")]
        output: Output,
    },
    /// Open and close connections that nobody watches beside calls, and see that the agent tells of the calls only and stays flat
    Churn(storm::ChurnOptions),
    /// Run a pod on a real containerd (or replay one) beside spanlet, and print where its start spent its time
    Demo(demo::Options),
    /// Stand for a runtime, start processes, and compare what an agent saw of them
    Execs(ModeOption),
    /// Write to a socket and read from it in every way, and see that what the probes do not follow is counted
    Ways(ModeOption),
    /// Run an OTLP/gRPC backend that accepts, refuses or dies as standard input says
    Upstream(upstream::Options),
    /// One side of a replay; started by `replay`
    #[command(hide = true)]
    ReplaySide(replay::SideArguments),
    /// The client of a storm; started by `storm`
    #[command(hide = true)]
    StormClient(storm::ClientArguments),
    /// The server of a storm; started by `storm`
    #[command(hide = true)]
    StormServer(storm::ServerArguments),
    /// Threads that are blocked in reads and writes; started by `storm`
    #[command(hide = true)]
    StormBlocked(storm::BlockedArguments),
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
        Command::Ways(options) => block_on(async move {
            interruptible(ways::check(&options.capture_mode)).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Upstream(options) => block_on(async move {
            interruptible(upstream::serve(&options)).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Storm { options, output } => block_on(run_storm(options, output)),
        Command::Churn(options) => block_on(async move {
            let report = interruptible(storm::churn(&options)).await?;
            println!("{report}");
            Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }),
        Command::StormClient(arguments) => block_on(storm::run_client(arguments)).map(|()| ExitCode::SUCCESS),
        Command::StormServer(arguments) => block_on(storm::run_server(arguments)).map(|()| ExitCode::SUCCESS),
        Command::StormBlocked(arguments) => storm::block(&arguments).map(|()| ExitCode::SUCCESS),
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

async fn run_storm(options: storm::Options, output: Output) -> Result<ExitCode> {
    let report = interruptible(storm::run(&options)).await?;
    match output {
        Output::Human => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.holds(options.exact) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
