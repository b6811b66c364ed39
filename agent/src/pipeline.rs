//! Wires the stages: the only module that knows them all.
//!
//! ```text
//!  receive ─[queue]─► worker: correlate ─► enrich ─► synthesize, record ─[budget]─► export ─► upstream
//!                       ▲  ▲                                       ▲
//!  capture ─[queue]─────┘  └──── queries ── admin ─────────────────┘ (answers)
//! ```
//!
//! One task, the worker, owns correlator, enricher, synthesizer and recorder, so none of them is locked. It waits for nothing but its
//! queues. Stopping goes the way of the spans: listeners, queue, export.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::{CaptureState, CaptureStatus};
use crate::batch::Batch;
use crate::budget::{Budget, Reservation};
use crate::call::{Call, CallEvent, Traceparent};
use crate::capture::{self, Capture, Event};
use crate::config::Config;
use crate::correlate::{self, Correlator, Outcome};
use crate::enrich::sources::Sources;
use crate::enrich::{self, Enricher, Hold, News};
use crate::export::{Exporter, Queue, UpstreamError};
use crate::listen::ListenError;
use crate::observe::{
    self, Admin, CallSample, DropReason, FilterRule, ForgetReason, IdentityResult, JoinResult, Label as _, Metrics,
    Query,
};
use crate::receive::{Intake, Received, Receiver};
use crate::record::Recorder;
use crate::synthesize::{self, Synthesizer};

/// Requests between receive and the worker. Their bytes are bounded by the budget; this bounds how far the worker can
/// fall behind in work.
const RECEIVED_MAX: usize = 1024;

/// Calls and processes between capture and the worker: some seconds of a node under churn. What finds it full is counted
/// as lost by capture; spans never wait for it.
const OBSERVED_MAX: usize = 4096;

/// Lists and changes from the runtime and the API that wait for the worker; their sources wait when it is full.
const NEWS_MAX: usize = 64;

/// How often it is looked whether spans of ours have waited long enough.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked whether requests that are held have waited long enough.
const HOLD_TICK: Duration = Duration::from_millis(50);

/// An eighth of the memory for spans may wait for pods, which with the room to rewrite them is a quarter: new spans must find a
/// place.
const HOLD_SHARE: usize = 8;

/// How long requests under way may take to end when the agent stops. Their senders still have what is cut off.
const RECEIVE_DRAIN: Duration = Duration::from_secs(5);

/// The agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Capture(#[from] capture::StartError),
}

/// The running agent.
#[derive(Debug)]
pub struct Pipeline {
    addresses: Addresses,
    metrics: Metrics,
    observed: mpsc::Sender<Event>,
    receiving: watch::Sender<bool>,
    stop_receiving: watch::Sender<bool>,
    receiver: JoinHandle<()>,
    stop_worker: oneshot::Sender<()>,
    worker: JoinHandle<()>,
    exporter: Option<Exporter>,
    admin: JoinHandle<()>,
}

/// Where the agent listens; `None` where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
}

// === impl Pipeline ===

impl Pipeline {
    /// Binds the listeners and starts every stage.
    ///
    /// # Errors
    /// [`StartError`] if a listener cannot be bound or upstream is not usable; nothing runs then.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let metrics = Metrics::new(Budget::new(config.span_bytes(), config.export.queue_bytes));
        let receiver = Receiver::bind(&config.receive).await?;
        let admin = Admin::bind(&config.admin).await?;
        let addresses = Addresses {
            grpc: receiver.grpc_address(),
            http: receiver.http_address(),
            admin: admin.address(),
            metrics: admin.metrics_address(),
        };
        let exporter = match &config.export.endpoint {
            Some(endpoint) => Some(Exporter::spawn(&config.export, endpoint, metrics.clone())?),
            None => None,
        };

        let (queue, received) = mpsc::channel(RECEIVED_MAX);
        let (observed, seen) = mpsc::channel(OBSERVED_MAX);
        let capture = capture::start(&config.capture, metrics.clone(), observed.clone())?;
        let status = capture.status();
        let (news, told_news) = mpsc::channel(NEWS_MAX);
        let sources = Sources::spawn(config, &news, &metrics, settled(status.clone()));
        let (queries, questions) = observe::queries();
        let (stop_worker, stopping) = oneshot::channel();
        let worker = Worker {
            metrics: metrics.clone(),
            correlator: Correlator::new(correlate::Limits::default()),
            enricher: Enricher::new(config.enrich.clone()),
            hold: Hold::new(config.correlate.hold, config.span_bytes() / HOLD_SHARE),
            synthesizer: Synthesizer::new(config, &synthesize::boot_id()),
            recorder: Recorder::new(&config.record),
            sources,
            outbound: exporter.as_ref().map(|exporter| exporter.queue().clone()),
            joins: correlate::Counts::default(),
            identity: enrich::Counts::default(),
        };
        let worker = tokio::spawn(worker.run(Inputs {
            received,
            capture,
            observed: seen,
            news: told_news,
            questions,
            stopping,
        }));

        let (receiving, is_receiving) = watch::channel(true);
        let capture = told(status);
        let subject = observe::Subject { metrics: metrics.clone(), queries, receiving: is_receiving, capture };
        let admin = tokio::spawn(admin.serve(subject));

        let (stop_receiving, stopping) = watch::channel(false);
        let intake = Intake::new(queue, metrics.clone(), config.receive.max_request_bytes);
        let receiver = tokio::spawn(receiver.serve(intake, stopping));
        tracing::info!(?addresses, endpoint = config.export.endpoint, "spanlet runs");
        Ok(Self {
            addresses,
            metrics,
            observed,
            receiving,
            stop_receiving,
            receiver,
            stop_worker,
            worker,
            exporter,
            admin,
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where what was seen of calls and processes goes in.
    pub fn observed(&self) -> &mpsc::Sender<Event> {
        &self.observed
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Stops in the order of the flow: takes no more requests, finishes those under way, empties the queues, sends what
    /// is held until `export.drain_timeout`.
    pub async fn stop(self) {
        self.receiving.send_replace(false);
        self.stop_receiving.send_replace(true);
        let abort = self.receiver.abort_handle();
        if tokio::time::timeout(RECEIVE_DRAIN, self.receiver).await.is_err() {
            tracing::warn!(after = ?RECEIVE_DRAIN, "requests under way were cut off; their senders still have them");
            abort.abort();
        }
        drop(self.stop_worker); // connections that were cut off may hold the queue's other end a little longer
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the worker ended abnormally");
        }
        if let Some(exporter) = self.exporter {
            exporter.drain().await;
        }
        self.admin.abort();
        tracing::info!(spans = ?self.metrics.spans(), "spanlet has stopped");
    }
}

/// The task that every span passes through.
#[derive(Debug)]
struct Worker {
    metrics: Metrics,
    correlator: Correlator,
    enricher: Enricher,
    hold: Hold<Reservation>,
    synthesizer: Synthesizer,
    recorder: Recorder,
    sources: Sources,
    /// `None` keeps spans on the node.
    outbound: Option<Queue>,
    /// What of the correlator's and the enricher's counts is in the metrics already.
    joins: correlate::Counts,
    identity: enrich::Counts,
}

/// What the worker waits for.
#[derive(Debug)]
struct Inputs {
    received: mpsc::Receiver<Received>,
    capture: Capture,
    observed: mpsc::Receiver<Event>,
    news: mpsc::Receiver<News>,
    questions: mpsc::Receiver<Query>,
    stopping: oneshot::Receiver<()>,
}

// === impl Worker ===

impl Worker {
    /// Runs until it is stopped and the queue of requests is empty.
    async fn run(mut self, mut inputs: Inputs) {
        let mut stopped = false;
        let mut tick = tokio::time::interval(TICK);
        let mut hold_tick = tokio::time::interval(HOLD_TICK);
        let status = inputs.capture.status();
        loop {
            tokio::select! {
                next = inputs.received.recv() => match next {
                    Some(Received { batch, reservation }) => {
                        inputs.capture.flush(&mut inputs.observed, |seen| self.observed(seen)).await;
                        let may_wait = !self.hold.is_off() && matches!(*status.borrow(), capture::Status::Off { .. });
                        self.batch(batch, reservation, &inputs.capture, may_wait);
                    }
                    None => break,
                },
                Some(observed) = inputs.observed.recv() => self.observed(observed),
                Some(news) = inputs.news.recv() => {
                    self.enricher.news(&news);
                    self.pass_on_late_owners();
                    self.count();
                }
                _ = hold_tick.tick(), if !self.hold.is_empty() => {
                    let ready = self.hold.take_ready(&mut self.enricher, Instant::now());
                    self.pass_on(ready);
                }
                _ = tick.tick(), if self.synthesizer.is_waiting() => self.synthesizer.tick(now_ns()),
                Some(query) = inputs.questions.recv() => {
                    inputs.capture.flush(&mut inputs.observed, |seen| self.observed(seen)).await;
                    self.answer(query);
                }
                _ = &mut inputs.stopping, if !stopped => {
                    stopped = true;
                    inputs.received.close();
                }
            }
            self.send_made();
        }
        // What was seen until now is told too: the end of the queue of requests may be found first.
        inputs.capture.flush(&mut inputs.observed, |seen| self.observed(seen)).await;
        let held = self.hold.take_all();
        self.pass_on(held);
        self.synthesizer.tick(u64::MAX); // nothing waits any longer
        self.send_made();
    }

    fn observed(&mut self, observed: Event) {
        match observed {
            Event::Call(mut event) => {
                self.enricher.call(&mut event);
                self.correlator.observe(&event);
                self.synthesizer.call(&event);
                self.recorder.call(&event);
                if let CallEvent::Finished(call) = &event {
                    self.metrics.call(&sample(call));
                }
            }
            Event::Exec(mut exec) => {
                self.enricher.exec(&mut exec);
                self.synthesizer.exec(&exec);
                self.recorder.exec(&exec);
            }
        }
        self.pass_on_late_owners();
        self.pass_on_questions();
    }

    fn batch(&mut self, mut batch: Batch, reservation: Reservation, capture: &Capture, may_wait: bool) {
        for learned in self.correlator.correlate(&mut batch) {
            capture.learn(learned.connection, learned.stream, learned.method);
        }
        self.enricher.identify(&mut batch);
        self.pass_on_late_owners();
        let ready = if may_wait && self.enricher.awaits(&batch) {
            self.hold.keep(batch, reservation, Instant::now())
        } else {
            vec![(batch, reservation)]
        };
        self.pass_on(ready);
    }

    fn pass_on(&mut self, ready: Vec<(Batch, Reservation)>) {
        for (mut batch, reservation) in ready {
            self.enricher.finish(&mut batch);
            self.synthesizer.batch(&batch);
            self.recorder.batch(&batch);
            if self.outbound.is_some() {
                let encoded = batch.request.encode(&batch.additions);
                drop(batch); // before a large request is copied into parts
                self.send(encoded, reservation);
            } else {
                self.metrics.filtered(FilterRule::Local, reservation.spans());
            }
        }
        self.count();
    }

    /// Sends the spans that the agent has made itself; they take their share of the budget as all others do.
    fn send_made(&mut self) {
        let Some(made) = self.synthesizer.take() else { return };
        let spans = made.counts.iter().map(|(_, count)| count).sum();
        let reservation = self.metrics.budget().reserve(made.request.len()).ok().map(|mut reservation| {
            reservation.hold_spans(spans);
            reservation
        });
        for (kind, count) in made.counts {
            self.metrics.synthesized(kind, count);
        }
        match reservation {
            Some(reservation) => self.send(made.request, reservation),
            None => self.metrics.dropped(DropReason::NoRoom, spans),
        }
    }

    fn send(&self, encoded: Bytes, reservation: Reservation) {
        match &self.outbound {
            Some(queue) => queue.push_request(encoded, reservation, &self.metrics),
            None => self.metrics.filtered(FilterRule::Local, reservation.spans()),
        }
    }

    fn pass_on_late_owners(&mut self) {
        for late in self.enricher.take_late_owners() {
            self.synthesizer.late_owner(late.connection, late.stream, &late.owner);
            self.recorder.late_owner(late.connection, late.stream, &late.owner);
        }
        for late in self.enricher.take_late_execs() {
            self.synthesizer.exec(&late);
            self.recorder.exec(&late);
        }
    }

    fn pass_on_questions(&mut self) {
        for question in self.enricher.take_questions() {
            if !self.sources.ask(question) {
                self.metrics.identity(IdentityResult::NotAsked, 1);
            }
        }
    }

    /// Brings the metrics up to what correlator and enricher have counted.
    fn count(&mut self) {
        let joins = self.correlator.counts();
        for outcome in Outcome::ALL {
            self.metrics.joins(join_result(outcome), joins.of(outcome) - self.joins.of(outcome));
        }
        self.metrics.forgotten(ForgetReason::TableFull, joins.calls_evicted - self.joins.calls_evicted);
        self.metrics.forgotten(ForgetReason::SameIds, joins.calls_refused - self.joins.calls_refused);
        self.joins = joins;

        let identity = self.enricher.counts();
        for result in IdentityResult::ALL {
            self.metrics.identity(*result, identity.of(*result) - self.identity.of(*result));
        }
        self.identity = identity;
        self.metrics.pods_known(identity.pods_held);
    }

    /// Whoever asked may have gone away meanwhile.
    fn answer(&self, query: Query) {
        match query {
            Query::Pods { answer } => drop(answer.send(self.recorder.pods(now_ns()))),
            Query::Pod { namespace, name, answer } => {
                drop(answer.send(self.recorder.pod(&namespace, &name, now_ns())));
            }
            Query::Calls { method, since_ns, answer } => {
                drop(answer.send(self.recorder.calls(method.as_deref(), since_ns)));
            }
        }
    }
}

/// A finished call in the terms of its metrics.
fn sample(call: &Call) -> CallSample<'_> {
    let points = &call.points;
    let phases_ns =
        [points.request_wait_ns(), points.handling_ns(), points.response_send_ns(), points.response_wait_ns()];
    CallSample {
        socket_kind: call.socket.kind.label(),
        naming: call.naming.label(),
        method: call.method.as_deref(),
        status_code: call.status.map(|status| status.code),
        duration_ns: call.is_end_known().then(|| call.ended_ns.saturating_sub(call.started_ns)),
        phases_ns,
        // Only a sampled trace can be looked up.
        trace_id: call.traceparent.filter(Traceparent::is_sampled).map(|parent| parent.trace_id),
    }
}

fn join_result(outcome: Outcome) -> JoinResult {
    match outcome {
        Outcome::Client => JoinResult::JoinedClient,
        Outcome::Server => JoinResult::JoinedServer,
        Outcome::Duplicate => JoinResult::Duplicate,
        Outcome::Refused => JoinResult::Refused,
        Outcome::Missed => JoinResult::Missed,
        Outcome::Unlinked => JoinResult::Unlinked,
    }
}

/// Capture's status in the terms of the debug API, kept up to date.
fn told(mut status: watch::Receiver<capture::Status>) -> watch::Receiver<CaptureStatus> {
    let (sender, told) = watch::channel(capture_status(&status.borrow()));
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            sender.send_replace(capture_status(&status.borrow()));
        }
        sender.closed().await; // capture has ended; its last status stays
    });
    told
}

/// Waits until the probes are attached or will not be.
async fn settled(mut status: watch::Receiver<capture::Status>) {
    // An error means that capture has ended: it will not attach any more.
    let _ = status.wait_for(|status| *status != capture::Status::Starting).await;
}

fn capture_status(status: &capture::Status) -> CaptureStatus {
    let without = |state, reasons: &[String]| CaptureStatus {
        state,
        mode: None,
        reasons: reasons.to_vec(),
        programs: BTreeMap::new(),
    };
    match status {
        capture::Status::Starting => without(CaptureState::Starting, &[]),
        capture::Status::Off { reasons } => without(CaptureState::Off, reasons),
        capture::Status::Attached { mode, reasons, programs } => CaptureStatus {
            state: CaptureState::Attached,
            mode: Some(mode.label().to_owned()),
            reasons: reasons.clone(),
            programs: programs.iter().map(|(name, instructions)| ((*name).to_owned(), *instructions)).collect(),
        },
    }
}

fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
