//! Sources of identity against servers on real unix sockets, without probes.

mod pod_resources;
mod runtime;

use std::time::Duration;

use spanlet::budget::Budget;
use spanlet::enrich::News;
use spanlet::observe::Metrics;
use tokio::sync::mpsc;

/// How long anything here may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

async fn next(news: &mut mpsc::Receiver<News>) -> News {
    tokio::time::timeout(PATIENCE, news.recv()).await.expect("news in time").expect("a source that runs")
}

fn metrics() -> Metrics {
    Metrics::new(Budget::new(0, 0))
}
