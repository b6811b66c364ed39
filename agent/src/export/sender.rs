//! Empties the queue: a few calls at a time while upstream answers, one at a time until it does again.
//!
//! ```text
//!         ┌──────────── success ─────────────┐
//!         ▼                                  │
//!   ┌─► Up (≤ 4 calls) ─ retryable ─► Down (none) ─ pause over ─► Probing (1 call)
//!   │                    failure        ▲                           │        │
//!   │                                   └───── retryable failure ───┘        │
//!   └──────────────────────────── success, or a refusal ─────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::call::{Accepted, Upstream};
use super::message::Outgoing;
use super::queue::Queue;
use super::retry::{Verdict, pause, verdict};
use crate::observe::{DropReason, Metrics};

/// Calls under way while upstream is well: enough to keep it busy over a round trip, few enough not to crowd it.
const CALLS_MAX: usize = 4;

/// The least time between two log lines about the same kind of loss.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// The task that sends.
#[derive(Debug)]
pub(super) struct Sender {
    upstream: Upstream,
    queue: Queue,
    metrics: Metrics,
    drain_timeout: Duration,
    health: Health,
    /// Retryable failures in a row.
    failures: u32,
    calls: JoinSet<(Outgoing, Result<Accepted, Status>)>,
    /// Spans of the calls under way.
    calling_spans: u64,
    /// Requests that failed and are to be sent again, before anything from the queue.
    again: VecDeque<Outgoing>,
    loss_log: LossLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Up,
    Down { until: Instant },
    Probing,
}

// === impl Sender ===

impl Sender {
    pub(super) fn new(upstream: Upstream, queue: Queue, metrics: Metrics, drain_timeout: Duration) -> Self {
        Self {
            upstream,
            queue,
            metrics,
            drain_timeout,
            health: Health::Up,
            failures: 0,
            calls: JoinSet::new(),
            calling_spans: 0,
            again: VecDeque::new(),
            loss_log: LossLog::default(),
        }
    }

    /// Sends until the queue is closed and empty, or until the drain deadline has passed.
    pub(super) async fn run(mut self) {
        let mut deadline = None;
        loop {
            if deadline.is_none() && self.queue.is_closed() {
                deadline = Some(Instant::now() + self.drain_timeout);
            }
            if deadline.is_some() && self.is_done() {
                return;
            }
            let pause_over = match self.health {
                Health::Down { until } => Some(until),
                Health::Up | Health::Probing => None,
            };
            let may_call = self.may_call();
            tokio::select! {
                Some(finished) = self.calls.join_next() => self.finish(finished),
                () = sleep_until(pause_over) => self.health = Health::Probing,
                () = ready(&self.queue, &self.again), if may_call => self.start(),
                () = self.queue.closed(), if deadline.is_none() => {}
                () = sleep_until(deadline) => return self.give_up().await,
            }
        }
    }

    fn may_call(&self) -> bool {
        match self.health {
            Health::Up => self.calls.len() < CALLS_MAX,
            Health::Down { .. } => false,
            Health::Probing => self.calls.is_empty(),
        }
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.again.is_empty() && self.calls.is_empty()
    }

    fn start(&mut self) {
        let Some(mut request) = self.again.pop_front().or_else(|| self.queue.pop()) else { return };
        let upstream = self.upstream.clone();
        self.calling_spans += request.spans();
        self.calls.spawn(async move {
            let answer = upstream.export(&mut request).await;
            (request, answer)
        });
    }

    fn finish(&mut self, finished: Result<(Outgoing, Result<Accepted, Status>), JoinError>) {
        let (request, answer) = finished.expect("a call neither panics nor is it aborted while the sender runs");
        self.calling_spans -= request.spans();
        match answer {
            Ok(accepted) => self.accepted(&request, &accepted),
            Err(status) => match verdict(&status) {
                Verdict::Retry { asked } => self.failed(request, &status, asked),
                Verdict::GiveUp => self.refused(&request, &status),
            },
        }
    }

    fn accepted(&mut self, request: &Outgoing, accepted: &Accepted) {
        self.recovered();
        let rejected = accepted.rejected_spans.min(request.spans());
        self.metrics.exported(request.spans() - rejected);
        if rejected > 0 {
            self.metrics.dropped(DropReason::Rejected, rejected);
            self.loss_log.lost(rejected, DropReason::Rejected, &accepted.message);
        }
    }

    fn refused(&mut self, request: &Outgoing, status: &Status) {
        self.recovered(); // it answers, and other requests may fare better
        self.metrics.dropped(DropReason::Refused, request.spans());
        self.loss_log.lost(request.spans(), DropReason::Refused, &format!("{:?}: {}", status.code(), status.message()));
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "upstream answers again");
        }
        self.failures = 0;
        self.health = Health::Up;
    }

    fn failed(&mut self, request: Outgoing, status: &Status, asked: Option<Duration>) {
        self.again.push_back(request);
        if let Health::Down { until } = self.health {
            // Another call of the same outage; only what upstream asks for can lengthen the pause.
            self.health = Health::Down { until: until.max(Instant::now() + asked.unwrap_or_default()) };
            return;
        }
        if self.failures == 0 {
            let (code, message) = (status.code(), status.message());
            tracing::warn!(?code, message, "upstream does not take spans; they are kept and sent again");
        }
        if status.code() == Code::DeadlineExceeded {
            self.upstream.reconnect();
        }
        self.failures = self.failures.saturating_add(1);
        self.health = Health::Down { until: Instant::now() + pause(self.failures, fastrand::f64(), asked) };
    }

    /// The drain deadline has passed. What is under way counts as lost: nobody waits for its answer any more.
    async fn give_up(&mut self) {
        self.calls.shutdown().await;
        let again: u64 = self.again.drain(..).map(|request| request.spans()).sum();
        let queued: u64 = std::iter::from_fn(|| self.queue.pop()).map(|request| request.spans()).sum();
        let lost = self.calling_spans + again + queued;
        self.metrics.dropped(DropReason::Shutdown, lost);
        tracing::error!(spans = lost, timeout = ?self.drain_timeout, "upstream did not take the last spans in time; they are lost");
    }
}

/// Waits until there is something to send.
async fn ready(queue: &Queue, again: &VecDeque<Outgoing>) {
    if again.is_empty() {
        queue.ready().await;
    }
}

/// Never completes without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Logs losses, but not each of them.
#[derive(Debug, Default)]
struct LossLog {
    last: Option<Instant>,
    unlogged_spans: u64,
}

impl LossLog {
    fn lost(&mut self, spans: u64, reason: DropReason, message: &str) {
        self.unlogged_spans += spans;
        if self.last.is_none_or(|last| last.elapsed() >= LOG_PAUSE) {
            self.last = Some(Instant::now());
            let spans = std::mem::take(&mut self.unlogged_spans);
            tracing::error!(spans, ?reason, message, "upstream did not take spans; they are lost");
        }
    }
}
