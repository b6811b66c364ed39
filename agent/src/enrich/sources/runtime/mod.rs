//! The container runtime, asked over its own socket for what the agent was too late to see.
//!
//! ```text
//!  probes attached, or off ─► listing ──answered──► answering ──the socket is another──┐
//!                               ▲ └─nobody answers: wait, longer each time─┘           │
//!                               └──────────────────────────────────────────────────────┘
//! ```
//!
//! It is asked read-only and rarely: two lists at the start and when the runtime has started again, and the status of a
//! container once, if its name is not known. The kernel programs leave the agent's own connections out; they must be
//! attached for that, hence the wait.

mod facts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use spanlet_proto::cri::{
    ContainerStatusRequest, ContainerStatusResponse, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse,
};
use tokio::sync::mpsc;

use super::grpc::{CallError, Client};
use super::socket_file::SocketFile;
use crate::call::SocketKind;
use crate::config::{Ask, Config};
use crate::enrich::{News, OwnedFact, Source};

/// Between two rounds of looking for a runtime that answers.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often the socket's file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// At most ten questions a second: pods that start together are named within seconds, and the runtime has other work.
const QUESTION_PAUSE: Duration = Duration::from_millis(100);

/// The source. [`Runtime::run`] is its life.
#[derive(Debug)]
pub(super) struct Runtime {
    /// Sockets to try, in this order.
    paths: Vec<PathBuf>,
    news: mpsc::Sender<News>,
    /// Ids of containers.
    questions: mpsc::Receiver<String>,
}

/// A runtime that has answered.
#[derive(Debug)]
struct Answering {
    path: PathBuf,
    file: SocketFile,
}

// === impl Runtime ===

impl Runtime {
    /// `None` if the configuration does not want it, or names no socket of a runtime.
    pub(super) fn new(config: &Config, news: mpsc::Sender<News>, questions: mpsc::Receiver<String>) -> Option<Self> {
        let paths = match config.enrich.runtime {
            Ask::Off => Vec::new(),
            Ask::Auto => paths(config),
        };
        (!paths.is_empty()).then_some(Self { paths, news, questions })
    }

    /// Lists and answers until nobody listens to the news.
    pub(super) async fn run(mut self) {
        while let Some(answering) = self.list().await {
            if !self.answer(&answering).await {
                return;
            }
        }
    }

    /// Asks each runtime in turn until one lists its pods.
    async fn list(&self) -> Option<Answering> {
        let mut pause = PAUSE_MIN;
        loop {
            for path in &self.paths {
                let Some(file) = SocketFile::at(path).await else { continue };
                match list(path).await {
                    Ok(facts) => {
                        tracing::info!(socket = %path.display(), facts = facts.len(), "the runtime told its pods");
                        self.news.send(News { source: Source::Runtime, facts }).await.ok()?;
                        return Some(Answering { path: path.clone(), file });
                    }
                    Err(error) => {
                        tracing::debug!(socket = %path.display(), %error, "the runtime does not tell its pods");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Answers questions until the socket is another. False if nobody asks or listens any more.
    async fn answer(&mut self, answering: &Answering) -> bool {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                _ = look.tick() => {
                    if SocketFile::at(&answering.path).await != Some(answering.file) {
                        tracing::info!(socket = %answering.path.display(), "the runtime is gone or has started again");
                        return true;
                    }
                }
                asked = self.questions.recv() => {
                    let Some(container) = asked else { return false };
                    match status(answering, &container).await {
                        Ok(facts) => {
                            if self.news.send(News { source: Source::Runtime, facts }).await.is_err() {
                                return false;
                            }
                        }
                        Err(error) => tracing::debug!(container, %error, "the runtime does not tell of a container"),
                    }
                    tokio::time::sleep(QUESTION_PAUSE).await;
                }
            }
        }
    }
}

/// The configured socket, or all that are watched as a runtime's; a prefix names none.
fn paths(config: &Config) -> Vec<PathBuf> {
    if let Some(path) = &config.enrich.runtime_endpoint {
        return vec![path.clone()];
    }
    let sockets = config.capture.sockets.iter();
    let runtimes = sockets.filter(|socket| socket.kind == SocketKind::Cri && !socket.path.ends_with('*'));
    runtimes.map(|socket| PathBuf::from(&socket.path)).collect()
}

async fn list(path: &Path) -> Result<Vec<OwnedFact>, CallError> {
    let client = Client::connect(path).await?;
    let sandboxes: ListPodSandboxResponse =
        client.call("/runtime.v1.RuntimeService/ListPodSandbox", ListPodSandboxRequest {}).await?;
    let containers: ListContainersResponse =
        client.call("/runtime.v1.RuntimeService/ListContainers", ListContainersRequest {}).await?;
    Ok(facts::of_lists(sandboxes.items, containers.containers))
}

async fn status(answering: &Answering, container: &str) -> Result<Vec<OwnedFact>, CallError> {
    let client = Client::connect(&answering.path).await?;
    let request = ContainerStatusRequest { container_id: container.to_owned() };
    let answer: ContainerStatusResponse = client.call("/runtime.v1.RuntimeService/ContainerStatus", request).await?;
    Ok(answer.status.and_then(facts::of_status).into_iter().collect())
}
