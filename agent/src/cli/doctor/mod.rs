//! `spanlet doctor`: looks at this machine as the agent would, and says of each thing whether it is well and, if not, how to
//! mend it.
//!
//! It loads and attaches the kernel programs for a moment, as the agent does at its start, and writes nothing.

mod agent;
mod kernel;
mod sockets;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::client::{Failure, Output};
use super::render::{self, Terminal};
use super::{Error, client};
use crate::api;
use crate::capture::probe;
use crate::config::Config;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Configuration to check this machine against; default: /etc/spanlet/config.yaml if it is there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Admin address of the agent; default: the configured one.
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,
    /// How to print the findings.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    found: String,
    /// What to do about a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Something is as it may be, but the agent knows less.
    Note,
    Problem,
}

/// Prints the findings.
///
/// # Errors
/// [`Error::Config`] for a bad configuration, [`Error::Unhealthy`] when there is a problem.
pub fn execute(args: &Args, terminal: &Terminal, out: &mut impl Write) -> Result<(), Error> {
    let config = Config::load(args.config.as_deref(), |name| std::env::var(name).ok())?;
    let mut findings = kernel::findings();
    findings.extend(probes(&config));
    findings.extend(sockets::findings(&config.capture.sockets));
    let status = args.admin.or(config.admin.listen).map(ask).transpose()?.flatten();
    findings.extend(agent::findings(status.as_ref()));
    match args.output {
        Output::Json => render::json(out, &findings)?,
        Output::Human => print(&findings, terminal, out)?,
    }
    match findings.iter().filter(|finding| finding.state == State::Problem).count() {
        0 => Ok(()),
        problems => Err(Error::Unhealthy { problems }),
    }
}

/// `None` when no agent runs there.
fn ask(address: SocketAddr) -> Result<Option<api::Status>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    match runtime.block_on(client::get(address, "/api/v1/status")) {
        Ok(status) => Ok(status),
        Err(Failure::Unavailable { .. }) => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// What the agent would attach, and why that.
fn probes(config: &Config) -> Vec<Finding> {
    let (first, reasons) = match probe::attach(&config.capture) {
        Ok(outcome) => {
            (Finding::ok("kernel probes", format!("{} mode", outcome.attached.mode.label())), outcome.reasons)
        }
        Err(error) => {
            let mend = "without them spans are only forwarded; mend one of the reasons that follow";
            (Finding::problem("kernel probes", "none can be attached", mend), error.reasons)
        }
    };
    let reasons =
        reasons.into_iter().map(|reason| Finding { state: first.state.at_most_a_note(), ..Finding::note("", reason) });
    std::iter::once(first.clone()).chain(reasons).collect()
}

fn print(findings: &[Finding], terminal: &Terminal, out: &mut impl Write) -> Result<(), Error> {
    for finding in findings {
        let (sign, colour) = match finding.state {
            _ if finding.what.is_empty() => ("", ""),
            State::Ok => ("ok", "\x1b[32m"),
            State::Note => ("note", "\x1b[33m"),
            State::Problem => ("problem", "\x1b[31m"),
        };
        let (colour, reset) = if terminal.colours { (colour, "\x1b[0m") } else { ("", "") };
        writeln!(out, "{colour}{sign:<7}{reset}  {:<16}  {}", finding.what, render::printable(&finding.found))?;
        if let Some(mend) = &finding.mend {
            writeln!(out, "{:<7}  {:<16}  → {mend}", "", "")?;
        }
    }
    Ok(())
}

// === impl Finding ===

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Ok, found: found.into(), mend: None }
    }

    fn note(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Note, found: found.into(), mend: None }
    }

    fn problem(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, state: State::Problem, found: found.into(), mend: Some(mend.into()) }
    }
}

impl State {
    /// Reasons of a problem are no further problems.
    fn at_most_a_note(self) -> Self {
        if self == Self::Problem { Self::Note } else { self }
    }
}
