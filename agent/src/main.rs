//! Arguments, configuration, run, exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use spanlet::cli::{self, Arguments, Command};
use spanlet::config::Config;
use spanlet::observe;
use spanlet::pipeline::{Pipeline, StartError};
use tokio::signal::unix::{SignalKind, signal};

/// A node agent must leave the node's processors to the node; at four threads one core's worth of spans is far exceeded.
const THREADS_MAX: usize = 4;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print(); // nowhere to report that printing failed
            return if error.use_stderr() { ExitCode::from(cli::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match arguments.command {
        Command::Run(arguments) => run(&arguments),
        other => cli::execute(&other).map_err(anyhow::Error::new),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spanlet: {}", observe::explain(error.as_ref()));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(arguments: &cli::run::Arguments) -> anyhow::Result<()> {
    let config =
        Config::load(arguments.config.as_deref(), |name| std::env::var(name).ok()).map_err(cli::Error::from)?;
    observe::start_logging(&config.log).map_err(anyhow::Error::from_boxed).context("start the log")?;
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let pipeline = Pipeline::start(&config).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        pipeline.stop().await;
        Ok(())
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<StartError>() {
        Some(StartError::Listen(_) | StartError::Capture(_)) => cli::UNAVAILABLE,
        Some(StartError::Upstream(_)) => cli::USAGE,
        None => error.downcast_ref::<cli::Error>().map_or(cli::FAILED, cli::Error::exit_code),
    }
}
