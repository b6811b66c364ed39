//! What waits for export, oldest first. Its bytes are bounded by the [budget](crate::budget): what the budget refuses
//! never gets as far as this queue, so that nothing acknowledged must be thrown out of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use spanlet_otlp::TraceRequest;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::message::Outgoing;
use crate::budget::Reservation;
use crate::observe::{DropReason, Metrics};

/// Most bytes in one merged request, before compression. The Collector, as every grpc-go server, refuses messages of
/// more than 4 MiB unless configured otherwise.
pub(super) const MERGE_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// The specification's limit for what a client sends.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Parts repeat the resource and scope of their spans. Where that would more than double a request (a resource of
/// megabytes, say), it goes out whole and upstream decides.
const GROWTH_MAX: usize = 2;

/// One encoded `ExportTraceServiceRequest` and what it takes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) reservation: Reservation,
}

/// The queue before export; clones share it.
#[derive(Debug, Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    batch_spans: u64,
    batch_delay: Duration,
    waiting: Mutex<Waiting>,
    /// Told on every push; one task waits.
    pushed: Notify,
    closed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    chunks: VecDeque<(Instant, Chunk)>,
    spans: u64,
    bytes: usize,
    closed: bool,
}

// === impl Queue ===

impl Queue {
    /// A batch is ready when it has `batch_spans` spans, or when its oldest has waited for `batch_delay`.
    pub fn new(batch_spans: usize, batch_delay: Duration) -> Self {
        let shared = Shared {
            batch_spans: batch_spans as u64,
            batch_delay,
            waiting: Mutex::default(),
            pushed: Notify::new(),
            closed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Queues one encoded request, in parts if upstream would not take it whole. A part that is longer than anyone takes
    /// is counted as dropped.
    pub fn push_request(&self, bytes: Bytes, reservation: Reservation, metrics: &Metrics) {
        for chunk in parts(bytes, reservation, MERGE_BYTES_MAX) {
            if chunk.bytes.len() > REQUEST_BYTES_MAX {
                metrics.dropped(DropReason::TooLarge, chunk.reservation.spans());
                tracing::error!(bytes = chunk.bytes.len(), "a span is longer than any request may be; it is lost");
            } else {
                self.push(chunk);
            }
        }
    }

    /// Queues one chunk. Never refuses: the budget has done so before.
    fn push(&self, mut chunk: Chunk) {
        chunk.reservation.resize(chunk.bytes.len());
        chunk.reservation.mark_queued();
        let mut waiting = self.lock();
        waiting.spans += chunk.reservation.spans();
        waiting.bytes += chunk.bytes.len();
        waiting.chunks.push_back((Instant::now(), chunk));
        drop(waiting);
        self.shared.pushed.notify_one();
    }

    /// From now on what waits is sent without delay.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.shared.closed.notify_one();
    }

    /// Waits until the queue is closed; one task may do so, once.
    pub(super) async fn closed(&self) {
        self.shared.closed.notified().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().chunks.is_empty()
    }

    /// Waits until a batch is ready; once the queue is closed, that is as long as it holds anything. Cancel safe.
    pub(super) async fn ready(&self) {
        loop {
            let pushed = self.shared.pushed.notified();
            let due = {
                let waiting = self.lock();
                let full = waiting.is_full(self.shared.batch_spans);
                if full || waiting.closed && !waiting.chunks.is_empty() {
                    return;
                }
                waiting.chunks.front().map(|(since, _)| *since + self.shared.batch_delay)
            };
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => drop(tokio::time::timeout_at(due, pushed).await),
                None => pushed.await,
            }
        }
    }

    /// Takes the next batch: at least one chunk if there is any, then more up to `batch_spans` or the size limit.
    pub(super) fn pop(&self) -> Option<Outgoing> {
        let mut waiting = self.lock();
        let mut batch = vec![waiting.pop()?];
        let mut spans = batch[0].reservation.spans();
        let mut bytes = batch[0].bytes.len();
        while let Some((_, next)) = waiting.chunks.front() {
            spans += next.reservation.spans();
            bytes += next.bytes.len();
            if spans > self.shared.batch_spans || bytes > MERGE_BYTES_MAX {
                break;
            }
            batch.extend(waiting.pop());
        }
        drop(waiting);
        Outgoing::merge(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn is_full(&self, batch_spans: u64) -> bool {
        self.spans >= batch_spans || self.bytes >= MERGE_BYTES_MAX
    }

    fn pop(&mut self) -> Option<Chunk> {
        let (_, chunk) = self.chunks.pop_front()?;
        self.spans -= chunk.reservation.spans();
        self.bytes -= chunk.bytes.len();
        Some(chunk)
    }
}

/// Cuts a request that is longer than `max_bytes`, as far as its spans allow.
fn parts(bytes: Bytes, mut reservation: Reservation, max_bytes: usize) -> Vec<Chunk> {
    let whole = |bytes, reservation| vec![Chunk { bytes, reservation }];
    if bytes.len() <= max_bytes {
        return whole(bytes, reservation);
    }
    let mut parts = Vec::new();
    let mut parts_bytes = 0;
    // It was parsed before, so it parses again; were it not so, upstream would be told the whole and refuse it.
    for part in spanlet_otlp::split(bytes.clone(), usize::MAX, max_bytes).into_iter().flatten() {
        parts_bytes += part.len();
        if parts_bytes > bytes.len() * GROWTH_MAX {
            return whole(bytes, reservation);
        }
        let spans = TraceRequest::parse(part.clone()).map_or(0, |part| part.span_count() as u64);
        parts.push((part, spans));
    }
    if parts.iter().map(|(_, spans)| spans).sum::<u64>() != reservation.spans() {
        return whole(bytes, reservation);
    }
    let chunk = |(bytes, spans): (Bytes, u64)| Chunk { reservation: reservation.split_off(bytes.len(), spans), bytes };
    parts.into_iter().map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    const DELAY: Duration = Duration::from_millis(200);

    fn chunk(budget: &Budget, bytes: usize, spans: u64) -> Chunk {
        let mut reservation = budget.reserve(bytes).unwrap();
        reservation.hold_spans(spans);
        Chunk { bytes: Bytes::from(vec![0; bytes]), reservation }
    }

    fn budget() -> Budget {
        Budget::new(64 << 20, 64 << 20)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_at_once_and_a_small_one_after_the_delay() {
        let (budget, queue) = (budget(), Queue::new(100, DELAY));
        let start = Instant::now();
        queue.push(chunk(&budget, 10, 60));
        queue.push(chunk(&budget, 10, 40));
        queue.ready().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(queue.pop().unwrap().spans(), 100);
        queue.push(chunk(&budget, 10, 7));
        queue.ready().await;
        assert_eq!(start.elapsed(), DELAY);
        assert_eq!(queue.pop().unwrap().spans(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn without_delay_or_when_closed_nothing_waits() {
        let (budget, queue) = (budget(), Queue::new(100, Duration::ZERO));
        let start = Instant::now();
        queue.push(chunk(&budget, 10, 1));
        queue.ready().await;
        let slow = Queue::new(100, DELAY);
        slow.push(chunk(&budget, 10, 1));
        slow.close();
        slow.ready().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[test]
    fn batches_keep_order_and_their_limits() {
        let (budget, queue) = (budget(), Queue::new(100, DELAY));
        for (bytes, spans) in [(10, 60), (10, 50), (10, 50), (MERGE_BYTES_MAX, 1), (10, 1), (10, 300)] {
            queue.push(chunk(&budget, bytes, spans));
        }
        let batches: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|batch| batch.spans()).collect();
        assert_eq!(batches, [60, 100, 1, 1, 300]);
        assert!(queue.is_empty());
        assert_eq!((budget.queued_bytes(), budget.held_spans()), (0, 0));
    }
}
