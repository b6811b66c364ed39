//! kubelet, asked over its pod-resources socket which pod has a device or a claim: the plugins' requests name no pod.
//!
//! ```text
//!  asked ─► wait: kubelet notes what it gave after the call ─► List ─┬─ all told ─► (idle)
//!                       ▲                                            └─ not yet ─┐
//!                       └────────── a few times, longer each time ───────────────┘
//! ```
//!
//! kubelet serves 100 lists a second to all who ask; this asks for one in half a second at most, and only after a call of a
//! plugin.

mod facts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use spanlet_proto::pod_resources::{ListPodResourcesRequest, ListPodResourcesResponse, PodResources};
use tokio::sync::mpsc;

use super::grpc::{CallError, Client};
use crate::call::SocketKind;
use crate::config::{Ask, Config};
use crate::enrich::{News, Question, Source};

const LIST: &str = "/v1.PodResourcesLister/List";

/// kubelet's name for its socket, where only the folder is configured.
const SOCKET_NAME: &str = "kubelet.sock";

/// Before each list for the same questions.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// Most questions answered together.
const WANTED_MAX: usize = 256;

/// The source. [`Kubelet::run`] is its life.
#[derive(Debug)]
pub(super) struct Kubelet {
    paths: Vec<PathBuf>,
    news: mpsc::Sender<News>,
    questions: mpsc::Receiver<Question>,
}

impl Kubelet {
    /// `None` if the configuration does not want it, or names no such socket.
    pub(super) fn new(config: &Config, news: mpsc::Sender<News>, questions: mpsc::Receiver<Question>) -> Option<Self> {
        let paths = match config.enrich.pod_resources {
            Ask::Off => Vec::new(),
            Ask::Auto => paths(config),
        };
        (!paths.is_empty()).then_some(Self { paths, news, questions })
    }

    /// Answers until nobody asks or listens to the news.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.questions.recv().await {
            let mut wanted = vec![first];
            for pause in PAUSES {
                tokio::time::sleep(pause).await;
                while wanted.len() < WANTED_MAX
                    && let Ok(another) = self.questions.try_recv()
                {
                    wanted.push(another);
                }
                let facts = facts::told(&mut wanted, &self.list().await);
                if !facts.is_empty() && self.news.send(News { source: Source::Runtime, facts }).await.is_err() {
                    return;
                }
                if wanted.is_empty() {
                    break;
                }
            }
        }
    }

    /// What the first socket that answers tells; nothing if none does.
    async fn list(&self) -> Vec<PodResources> {
        for path in &self.paths {
            match list(path).await {
                Ok(pods) => return pods,
                Err(error) => {
                    tracing::debug!(socket = %path.display(), %error, "kubelet does not tell its pods' devices");
                }
            }
        }
        Vec::new()
    }
}

fn paths(config: &Config) -> Vec<PathBuf> {
    let sockets = config.capture.sockets.iter().filter(|socket| socket.kind == SocketKind::PodResources);
    let path = |path: &str| match path.strip_suffix("/*") {
        Some(folder) => Some(Path::new(folder).join(SOCKET_NAME)),
        None => (!path.ends_with('*')).then(|| PathBuf::from(path)),
    };
    sockets.filter_map(|socket| path(&socket.path)).collect()
}

async fn list(path: &Path) -> Result<Vec<PodResources>, CallError> {
    let client = Client::connect(path).await?;
    let answer: ListPodResourcesResponse = client.call(LIST, ListPodResourcesRequest {}).await?;
    Ok(answer.pod_resources)
}
