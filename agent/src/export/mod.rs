//! Sends encoded trace requests upstream over OTLP/gRPC, and loses none of them while it may wait.
//!
//! ```text
//!  pipeline ─► [queue, bounded by the budget's bytes] ─► sender ─► call ─► upstream
//!                                                          ▲        │
//!                                                          └─ retry ┘
//! ```

mod call;
mod message;
mod queue;
mod retry;
mod sender;

use tokio::task::JoinHandle;

pub use call::UpstreamError;
pub use queue::Queue;

use crate::config;
use crate::observe::Metrics;

/// The export stage: a queue and the task that empties it.
#[derive(Debug)]
pub struct Exporter {
    queue: Queue,
    sender: JoinHandle<()>,
}

impl Exporter {
    /// Starts sending to `endpoint`.
    ///
    /// # Errors
    /// [`UpstreamError`] if the endpoint or a header is not usable; nothing is connected yet.
    pub fn spawn(config: &config::Export, endpoint: &str, metrics: Metrics) -> Result<Self, UpstreamError> {
        let upstream = call::Upstream::new(config, endpoint)?;
        let queue = Queue::new(config.batch_spans, config.batch_delay);
        let sender = sender::Sender::new(upstream, queue.clone(), metrics, config.drain_timeout);
        Ok(Self { queue, sender: tokio::spawn(sender.run()) })
    }

    /// Where the pipeline puts what is to be sent.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Takes no more, sends what is queued, and gives up at `export.drain_timeout`: what is left then is counted as
    /// dropped.
    pub async fn drain(self) {
        self.queue.close();
        if let Err(error) = self.sender.await {
            tracing::error!(%error, "the sender ended abnormally");
        }
    }
}
