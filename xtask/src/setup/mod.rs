//! Brings the machine to where a command can run: looks what is missing, says it, installs it.
//!
//! [`machine`] looks, [`plan`] decides (pure, tested by tables), [`apply`] installs. On Debian 12 as root everything
//! comes from apt and crates.io; elsewhere nothing is installed halfway: the user gets the list and exit code 69.

mod apply;
pub(crate) mod debian;
mod machine;
mod packages;
mod plan;
mod service;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

pub(crate) use plan::{Need, Toolchain};

use crate::sh;

/// Something is missing that this command may not or cannot install.
#[derive(Debug, thiserror::Error)]
#[error("not available on this machine:\n{0}")]
pub(crate) struct Unavailable(String);

/// What was found or made ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// The way in which kernel programs are built here.
    pub(crate) toolchain: Toolchain,
}

/// Makes ready what `needs` asks for; under a second when it is there already.
pub(crate) fn ensure(needs: &[Need]) -> Result<Ready> {
    service::remove_stale_guard()?;
    let machine = machine::look()?;
    let plan = plan::plan(needs, &machine);
    if !plan.lacking.is_empty() {
        let lines: Vec<_> = plan.lacking.iter().map(|lack| format!("  {}: {}", lack.what, lack.remedy)).collect();
        return Err(Unavailable(lines.join("\n")).into());
    }
    if !plan.steps.is_empty() {
        apply::apply(&plan.steps)?;
        let left = plan::plan(needs, &machine::look()?);
        if !left.steps.is_empty() {
            bail!("installed without an error, yet still missing: {:?}", left.steps);
        }
    }
    Ok(Ready { toolchain: plan.toolchain })
}

/// Like [`ensure`] for what one can do without: what is lacking is returned, to be told at the end.
pub(crate) fn ensure_if_possible(needs: &[Need]) -> Result<Option<Unavailable>> {
    match ensure(needs) {
        Ok(_) => Ok(None),
        Err(error) => error.downcast().map(Some),
    }
}

/// A command whose `PATH` begins with the tools that setup keeps for itself.
pub(crate) fn with_tools(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools_dir().join("bin")).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).expect("PATH was split at the same separator"));
    command
}

/// Tools of which the user has another version for other work.
fn tools_dir() -> PathBuf {
    sh::target_dir().join("tools")
}
