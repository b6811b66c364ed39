//! Finds the workspace's programs that a test starts as processes.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// A program of the workspace, built into the same target directory as the one that runs.
///
/// # Errors
/// When it was not built.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    let directories = own.ancestors().skip(1).take(2); // a test's program lies in `deps`
    let candidates = directories.map(|directory| directory.join(name));
    candidates.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("{name} is not built beside {}: cargo build -p spanlet -p spanlet-node", own.display())
    })
}
