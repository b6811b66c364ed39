//! `spanlet config`.

use std::io::Write;
use std::path::PathBuf;

use super::Error;
use crate::config::{Config, default_file};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List everything that is wrong with a file and the OTEL_* variables, each with key and line.
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print every key with its default and what it is for.
    Default,
}

pub(super) fn execute(command: &Command, output: &mut impl Write) -> Result<(), Error> {
    match command {
        Command::Check { file } => {
            Config::load(Some(file), |name| std::env::var(name).ok())?;
            writeln!(output, "{}: ok", file.display()).map_err(Error::from)
        }
        Command::Default => output.write_all(default_file().as_bytes()).map_err(Error::from),
    }
}
