//! The agent's own log, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config;

/// A library that tells each failed try of what the agent tries again for ever; the agent says itself when trouble begins.
/// `log.level` may name it to hear it.
const NOISY: &str = "kube_runtime=off";

/// Starts logging. Colours only where a person looks at them.
///
/// # Errors
/// If the filter cannot be read, or a log was started before.
pub fn start_logging(config: &config::Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(format!("{NOISY},{}", config.level))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(true);
    if config.json { log.json().try_init() } else { log.with_ansi(io::stderr().is_terminal()).try_init() }
}
