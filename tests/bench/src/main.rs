//! `spanlet-bench`: what spanlet costs, measured with and without it by turns in one run.

mod cost;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU time that the probes add to system calls: on a watched socket, on others, and beside sockets
    Cost(cost::Options),
}

fn main() -> Result<()> {
    let Command::Cost(options) = Arguments::parse().command;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(cost::run(&options))
}
