//! The Kubernetes API: the node's pods, watched, and the node itself, read once.
//!
//! ```text
//!     401, no answer, five failures in a row
//!   ┌────────────────────────────────────────┐
//!   ▼                    410                 │
//!  connect ──► list ◄──────────── watch ─────┤ add, update, delete: told
//!              pages ───────────►   ▲        │ bookmark: where to go on
//!                                   └────────┘ any other failure: goes on from there
//! ```
//!
//! A pause comes before everything that is done again: twice as long each time, scattered so that nodes do not come back in
//! step. Nothing grows while the API is away. Rights: pods list and watch, nodes get; with `enrich.owner_lookups` also
//! replicasets get and jobs get. Each request for pods selects this node's, which RBAC alone cannot ask for.

mod attributes;
mod backoff;
mod connection;
mod facts;
mod node;
mod object;
mod owners;
mod pods;
mod trouble;
mod workload;

use std::time::Duration;

use tokio::sync::mpsc;

use crate::config;
use crate::config::KubernetesAccess;
use crate::enrich::News;
use crate::observe::Metrics;

/// How fast the API is asked. The defaults are for a cluster, others for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The pause after the first of several failures.
    pub first_pause: Duration,
    /// The longest pause. Some hundred nodes that come back within it are bearable for an API server that has just started.
    pub longest_pause: Duration,
    /// The longest pause of what is only asked for once, the node: without the right to it every try is in vain.
    pub longest_pause_of_node: Duration,
    /// How long a page of a list or an object may take to come.
    pub answer_within: Duration,
    /// After how many seconds the API server ends a watch, so that one whose connection is dead without a sign is noticed.
    pub watch_seconds: u32,
    /// Most pods of one page.
    pub page_pods: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            longest_pause_of_node: Duration::from_secs(300),
            answer_within: Duration::from_secs(30),
            watch_seconds: 290, // under the five minutes after which load balancers forget idle connections
            page_pods: 500,     // client-go's page; more than a usual node runs, so mostly one request
        }
    }
}

/// Whether the API is to be asked at all.
pub fn is_wanted(access: KubernetesAccess) -> bool {
    matches!(access, KubernetesAccess::InCluster | KubernetesAccess::Kubeconfig)
}

/// Watches until `news` is closed. Waits while it is full; nothing waits for this.
pub async fn run(config: config::Enrich, pace: Pace, news: mpsc::Sender<News>, metrics: Metrics) {
    let Some(node_name) = config.node_name.clone() else {
        tracing::warn!("the node's name is not known, so its pods are not watched; set enrich.node_name");
        return;
    };
    let api = Api { config, node_name, pace, news, metrics };
    tokio::join!(pods::watch(&api), node::read(&api));
}

/// What both tasks share.
#[derive(Debug)]
struct Api {
    config: config::Enrich,
    node_name: String,
    pace: Pace,
    news: mpsc::Sender<News>,
    metrics: Metrics,
}
