//! Sources of identity that are asked or watched, each in a task of its own: what they tell goes over one bounded queue to
//! the enricher. Losing one of them lowers what is known, never what is forwarded.

pub mod kubernetes;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::News;
use crate::config;
use crate::observe::Metrics;

/// The running sources. Dropping it stops them.
#[derive(Debug)]
pub struct Sources {
    _tasks: JoinSet<()>,
}

impl Sources {
    /// Starts the sources that `config` asks for; they tell `news` and wait while it is full.
    pub fn spawn(config: &config::Enrich, news: &mpsc::Sender<News>, metrics: &Metrics) -> Self {
        let mut tasks = JoinSet::new();
        if kubernetes::is_wanted(config.kubernetes) {
            let pace = kubernetes::Pace::default();
            tasks.spawn(kubernetes::run(config.clone(), pace, news.clone(), metrics.clone()));
        }
        Self { _tasks: tasks }
    }
}
