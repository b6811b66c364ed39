//! `spanlet pod NS/NAME`: where one pod's start spent its time.

use std::io::Write;
use std::str::FromStr;

use crate::api::{PodSummary, PodTimeline};

use super::client::{self, Failure, Output, Target};
use super::render::{self, Terminal, waterfall};

/// Names that differ from the one given by more edits than this are no help.
const MAX_EDITS: usize = 6;

/// Most names offered.
const MAX_CLOSE: usize = 5;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Namespace and name of the pod.
    #[arg(value_name = "NS/NAME")]
    pub pod: PodPath,
    /// Show gaps and inner steps however short.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPath {
    pub namespace: String,
    pub name: String,
}

/// What is wrong with a pod's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PodPathError {
    #[error("expected NAMESPACE/NAME")]
    Shape,
    #[error("a namespace and a pod's name hold only letters, digits, `-` and `.`")]
    Character,
}

pub async fn run(args: &Args, terminal: &Terminal, out: &mut impl Write) -> Result<(), Failure> {
    let PodPath { namespace, name } = &args.pod;
    let path = format!("/api/v1/pods/{namespace}/{name}");
    let Some(timeline): Option<PodTimeline> = client::get(args.target.admin, &path).await? else {
        let pods = client::get_list(args.target.admin, "/api/v1/pods").await?;
        return Err(Failure::UnknownPod { pod: args.pod.to_string(), close: close_names(&args.pod, &pods) });
    };
    match args.target.output {
        Output::Json => render::json(out, &timeline)?,
        Output::Human => waterfall::write(out, &timeline, terminal, args.all)?,
    }
    Ok(())
}

/// The same name elsewhere first, then names that begin with it (a Deployment's, say), then those a few letters away.
fn close_names(wanted: &PodPath, pods: &[PodSummary]) -> String {
    let distance = |pod: &PodSummary| {
        if pod.name == wanted.name {
            0
        } else if pod.name.starts_with(&wanted.name) {
            1
        } else {
            let path = format!("{}/{}", pod.namespace, pod.name);
            1 + strsim::damerau_levenshtein(&path, &wanted.to_string())
        }
    };
    let mut close: Vec<_> = pods
        .iter()
        .map(|pod| (distance(pod), format!("{}/{}", pod.namespace, pod.name)))
        .filter(|(distance, _)| *distance <= MAX_EDITS)
        .collect();
    close.sort();
    close.dedup();
    if close.is_empty() {
        return match pods.len() {
            0 => "; no pod's was yet".to_owned(),
            _ => "; `spanlet pods` lists those that were".to_owned(),
        };
    }
    let lines = close.into_iter().take(MAX_CLOSE).map(|(_, name)| format!("\n  {}", render::printable(&name)));
    format!("; close to it:{}", lines.collect::<String>())
}

impl FromStr for PodPath {
    type Err = PodPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or(PodPathError::Shape)?;
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(PodPathError::Shape);
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !namespace.chars().chain(name.chars()).all(is_allowed) {
            return Err(PodPathError::Character);
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl std::fmt::Display for PodPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
