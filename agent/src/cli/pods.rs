//! `spanlet pods`: the pods whose start was seen, the newest or the slowest first.

use std::io::Write;

use crate::api::{PodState, PodSummary};

use super::client::{self, Failure, Output, Target};
use super::render::table::{Align, Table};
use super::render::{Terminal, ratio, seconds, short_name};

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The longest start first, instead of the newest pod.
    #[arg(long)]
    pub slowest: bool,
    #[command(flatten)]
    pub target: Target,
}

pub async fn run(args: &Args, terminal: &Terminal, out: &mut impl Write) -> Result<(), Failure> {
    let mut pods: Vec<PodSummary> = client::get_list(args.target.admin, "/api/v1/pods").await?;
    if args.slowest {
        pods.sort_by(|a, b| b.duration_seconds.total_cmp(&a.duration_seconds));
    }
    match args.target.output {
        Output::Json => super::render::json(out, &pods)?,
        Output::Human if pods.is_empty() => writeln!(out, "no pod has started on this node since the agent has")?,
        Output::Human => table(&pods).write(out, terminal)?,
    }
    Ok(())
}

fn table(pods: &[PodSummary]) -> Table {
    let mut table = Table::new(&[
        ("POD", Align::Shrink),
        ("STATE", Align::Left),
        ("STARTED", Align::Left),
        ("TOOK", Align::Right),
        ("ACCOUNTED", Align::Right),
        ("SLOWEST", Align::Shrink),
    ]);
    for pod in pods {
        let slowest = pod
            .slowest
            .as_ref()
            .map_or_else(String::new, |slowest| format!("{} {}", seconds(slowest.seconds), short_name(&slowest.name)));
        table.push([
            format!("{}/{}", pod.namespace, pod.name),
            state(pod.state).to_owned(),
            // To the second.
            format!("{}Z", pod.started_at.get(..19).unwrap_or(&pod.started_at)),
            seconds(pod.duration_seconds),
            ratio(pod.accounted_ratio),
            slowest,
        ]);
    }
    table
}

pub(super) const fn state(state: PodState) -> &'static str {
    match state {
        PodState::Starting => "starting",
        PodState::Started => "started",
        PodState::Failed => "failed",
        PodState::Terminating => "terminating",
        PodState::Gone => "gone",
    }
}
