//! `spanlet run`.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Configuration file; without it /etc/spanlet/config.yaml, if that exists.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
