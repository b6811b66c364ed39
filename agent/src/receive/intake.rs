//! The door to the pipeline: parses a message, puts it into the queue, counts it, in that order of necessity.

use bytes::Bytes;
use spanlet_otlp::TraceRequest;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::message::ReadError;
use crate::batch::{Batch, Source};
use crate::budget::{Budget, Reservation};
use crate::observe::{self, Metrics, Refusal};

/// A request is held twice, with its index, while the worker writes the copy that goes on. One that is too large for
/// that needs the whole budget for itself.
const REWRITE_FACTOR: usize = 2;

/// An acknowledged request on its way to the pipeline, with the memory it takes.
#[derive(Debug)]
pub struct Received {
    pub batch: Batch,
    pub reservation: Reservation,
}

/// Takes requests from every listener.
#[derive(Debug, Clone)]
pub struct Intake {
    queue: mpsc::Sender<Received>,
    metrics: Metrics,
    max_request_bytes: usize,
}

/// A request that is not taken: why, in one word for the counter and in one sentence for the sender.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    pub(super) reason: Refusal,
    pub(super) detail: String,
}

// === impl Intake ===

impl Intake {
    /// `queue` bounds the number of requests between receive and pipeline; the budget of `metrics` their bytes.
    pub fn new(queue: mpsc::Sender<Received>, metrics: Metrics, max_request_bytes: usize) -> Self {
        Self { queue, metrics, max_request_bytes }
    }

    pub(super) fn budget(&self) -> &Budget {
        self.metrics.budget()
    }

    pub(super) fn max_request_bytes(&self) -> usize {
        self.max_request_bytes
    }

    /// Queues the spans of one message. Returning `Ok` is the promise that they will be exported or their loss counted.
    pub(super) fn accept(&self, source: Source, message: Bytes, mut reservation: Reservation) -> Result<(), Refused> {
        let request = TraceRequest::parse(message)
            .map_err(|error| Refused::new(Refusal::Malformed, format!("not an OTLP trace request: {error}")))?;
        let spans = request.span_count() as u64;
        if spans == 0 {
            return Ok(()); // the protocol wants success; there is nothing to forward
        }
        reservation.grow_to(self.budget().clamp(REWRITE_FACTOR * request.memory_bytes()))?;
        let place = self.queue.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => Refused::new(Refusal::QueueFull, "the agent's queue is full"),
            TrySendError::Closed(()) => Refused::new(Refusal::Stopping, "the agent is going down"),
        })?;
        reservation.hold_spans(spans);
        self.metrics.received(label(source), spans);
        place.send(Received { batch: Batch::new(source, request), reservation });
        Ok(())
    }

    /// Counts a refusal and passes it on.
    pub(super) fn refuse(&self, refused: Refused) -> Refused {
        self.metrics.refused(refused.reason);
        tracing::debug!(reason = observe::Label::label(refused.reason), detail = refused.detail, "request refused");
        refused
    }
}

fn label(source: Source) -> observe::Receiver {
    match source {
        Source::Grpc => observe::Receiver::Grpc,
        Source::Http => observe::Receiver::Http,
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(reason: Refusal, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        let reason = match error {
            ReadError::TooLarge { .. } => Refusal::TooLarge,
            ReadError::NoMemory(_) => Refusal::NoMemory,
            ReadError::Gzip(_) | ReadError::Frame(_) => Refusal::Malformed,
            ReadError::Body(_) => Refusal::Incomplete,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<crate::budget::Exhausted> for Refused {
    fn from(error: crate::budget::Exhausted) -> Self {
        Self::from(ReadError::NoMemory(error))
    }
}
