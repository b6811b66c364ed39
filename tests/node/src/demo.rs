//! A node to look at: containerd with a pod on it, or a recorded kubelet, and spanlet with its probes beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spanlet::api::{PodState, PodSummary};
use tempfile::TempDir;
use tokio::process::Command;

use crate::agent::{self, Agent, Ports};
use crate::kubelet::{Kubelet, PodSpec, RunningPod, Tracing};
use crate::programs;
use crate::replay::{self, Played, Replay};
use crate::runtime::Runtime;
use crate::upstream::{Keep, Upstream};

/// The recording that `--replay` plays.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/cri/cri-conn-k134-c17");
const NODE_NAME: &str = "demo-node";
/// From a pod's start to its timeline.
const TIMELINE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Leave everything running until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Play a recorded kubelet and containerd instead of running them
    #[arg(long)]
    pub replay: bool,
}

/// A demo that has shown its pod and still runs. Dropping it cleans everything up.
#[derive(Debug)]
pub enum Demo {
    Live(Box<Live>),
    Replayed(Box<Replay>, Played),
}

/// containerd, agent, upstream and one pod.
#[derive(Debug)]
pub struct Live {
    kubelet: Kubelet,
    pod: RunningPod,
    agent: Agent,
    upstream: Upstream,
    runtime: Runtime,
    _directory: TempDir,
}

impl Demo {
    /// Brings the node up, runs the pod and prints its timeline.
    ///
    /// # Errors
    /// When containerd cannot run here, probes cannot be attached, or a call to the runtime fails.
    pub async fn show(options: Options) -> Result<Self> {
        if options.replay { show_replay().await } else { show_live().await }
    }

    /// How to look at what runs, and how to end it.
    pub fn directions(&self) -> String {
        let (ports, socket) = match self {
            Self::Live(live) => (live.agent.ports(), Some(live.runtime.socket())),
            Self::Replayed(replay, _) => (replay.ports(), None),
        };
        let program =
            programs::find("spanlet").map_or_else(|_| "spanlet".to_owned(), |path| path.display().to_string());
        let mut text =
            format!("\nspanlet takes OTLP on {} (gRPC) and {} (HTTP); look into it with\n", ports.grpc, ports.http);
        for command in ["pods", "calls", "top"] {
            text += &format!("  {program} {command} --admin {}\n", ports.admin);
        }
        text += &format!("  curl http://{}/metrics\n", ports.admin);
        if let Some(socket) = socket {
            text += &format!(
                "containerd answers to\n  ctr --address {} --namespace k8s.io containers list\n",
                socket.display()
            );
        }
        text + "Ctrl-C ends and removes everything."
    }

    /// Ends what the demo started, in the order of a node that is drained.
    pub async fn end(self) -> Result<()> {
        match self {
            Self::Live(live) => live.end().await,
            Self::Replayed(replay, played) => {
                let summary = replay.finish(&played, None).await?;
                println!("\n{summary}");
                ensure!(summary.balances(), "the ledger does not balance");
                Ok(())
            }
        }
    }
}

impl Live {
    async fn end(mut self) -> Result<()> {
        self.kubelet.stop_pod(&self.pod).await?;
        self.kubelet.flush_spans()?;
        let exit = self.agent.stop().await?;
        ensure!(exit.success(), "spanlet ended with {exit}:\n{}", self.agent.log());
        println!(
            "\nspanlet has forwarded {} spans and is gone, and so is containerd.",
            self.upstream.received().span_count()
        );
        Ok(())
    }
}

async fn show_live() -> Result<Demo> {
    eprintln!("starting containerd with a directory and namespaces of its own");
    let runtime = Runtime::start()?;
    let upstream = Upstream::start(Keep::Ids)?;
    let directory = tempfile::Builder::new().prefix("spanlet-demo-").tempdir()?;
    let ports = Ports::free()?;
    let mut config = agent::config(&ports, &runtime.socket(), &upstream.endpoint());
    config["enrich"] = serde_json::json!({"node_name": NODE_NAME});
    let mut agent = Agent::start(directory.path(), ports, &config)?;
    let mode = agent.wait_until_attached().await?;
    eprintln!("spanlet runs, its probes are attached ({mode})");

    let tracing = Tracing::new(Some(&ports.otlp_endpoint()), NODE_NAME)?;
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await?;
    let pod = kubelet.start_pod(&PodSpec::new("default", "web")?).await.with_context(|| runtime.log())?;
    kubelet.relist().await?;
    kubelet.exec_sync(&pod, &["echo", "ready"]).await?;
    kubelet.flush_spans()?;
    eprintln!("a pod was started through the CRI\n");
    wait_until_started(&agent, &pod.spec).await?;
    show_pod(ports.admin, &pod.spec.namespace, &pod.spec.name).await?;
    Ok(Demo::Live(Box::new(Live { kubelet, pod, agent, upstream, runtime, _directory: directory })))
}

async fn show_replay() -> Result<Demo> {
    let prefix = PathBuf::from(RECORDING);
    let options = replay::Options::new(&prefix);
    let mut replay = Replay::prepare(&options, Keep::Ids).await?;
    let played = replay.play(&mut |line| eprintln!("{line}")).await?;
    let agent = replay.agent().context("a replay has an agent")?;
    let pods: Vec<PodSummary> = agent.get("/api/v1/pods").await?;
    ensure!(!pods.is_empty(), "spanlet saw no pod in {}", Path::new(RECORDING).display());
    let admin = agent.ports().admin;
    for pod in pods.iter().rev() {
        eprintln!();
        show_pod(admin, &pod.namespace, &pod.name).await?;
    }
    Ok(Demo::Replayed(Box::new(replay), played))
}

/// Calls reach the recorder within milliseconds; spans when the kubelet's SDK has sent them.
async fn wait_until_started(agent: &Agent, pod: &PodSpec) -> Result<()> {
    let started = async {
        loop {
            let pods: Vec<PodSummary> = agent.get("/api/v1/pods").await?;
            if pods.iter().any(|seen| seen.uid == pod.uid && seen.state == PodState::Started) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let waited = tokio::time::timeout(TIMELINE_TIMEOUT, started).await;
    waited.with_context(|| format!("spanlet did not see the pod start:\n{}", agent.log()))?
}

/// Prints what `spanlet pod` says, as a user would see it.
async fn show_pod(admin: SocketAddr, namespace: &str, name: &str) -> Result<()> {
    let mut command = Command::new(programs::find("spanlet")?);
    command.args(["pod", &format!("{namespace}/{name}"), "--admin", &admin.to_string()]);
    let status = command.status().await.context("run spanlet pod")?;
    ensure!(status.success(), "spanlet pod {namespace}/{name} ended with {status}");
    Ok(())
}
