//! Removal of a cgroup from every hierarchy that the machine has mounted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const MOUNT: &str = "/sys/fs/cgroup";

/// Removes the cgroup `parent` (an absolute path inside a hierarchy) and what is below it; nothing may run in it any more.
pub(super) fn remove(parent: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.join(parent.trim_start_matches('/')))?;
    }
    Ok(())
}

/// The unified hierarchy alone, or one directory for each hierarchy of version 1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(MOUNT)];
    for entry in fs::read_dir(MOUNT).context("list the cgroup hierarchies")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_tree(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("list {}", directory.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory).with_context(|| format!("remove {}", directory.display()))
}
