//! Keeps what was seen lately, and answers where a pod's start spent its time.
//!
//! ```text
//!  calls ──► recent ────────────────────────────────────────► /api/v1/calls
//!    │
//!    ├─ owner known ──► pods ──┐   at a query
//!  spans                       ├─► pod_calls ─► start ─► picture ─► timeline ─► /api/v1/pods…
//!    ├─ owner not known ──► unclaimed (by trace)    │       ▲
//!  execs                                            └─► pulls (waits)
//! ```
//!
//! Evidence is kept as it came and timelines are drawn when they are asked for, by a pure function of the evidence. Hence a
//! call may come before, between or after its spans. Everything together stays under `record.max_bytes`: the oldest calls
//! and the pods that were quiet the longest make room, and are counted.

mod bar;
mod cover;
mod entries;
mod evidence;
mod names;
mod picture;
mod pod_calls;
mod pod_record;
mod pods;
mod pulls;
mod recent;
mod span_reader;
mod start;
mod step;
mod timeline;
mod unclaimed;

use std::sync::Arc;

use spanlet_otlp::Span;

use crate::api::{CallEntry, PodSummary, PodTimeline};
use crate::batch::Batch;
use crate::call::CallEvent;
use crate::config;
use crate::exec::Exec;
use crate::pod::{Owner, Pod};

use evidence::{CallSeen, ExecSeen, SpanRole};
use names::Names;
use pod_calls::PodCalls;
use pod_record::{Piece, PodRecord};
use pods::Pods;
use pulls::Pulls;
use recent::Recent;
use step::Step;
use unclaimed::{TraceId, Unclaimed};

/// Recent calls may take this part of `record.max_bytes`; pods take the rest.
const RECENT_SHARE: usize = 4;

/// What waits for its pod may take this part: seconds of a node's calls, not more.
const UNCLAIMED_SHARE: usize = 16;

/// The recorder: one owner, no locks, no I/O.
#[derive(Debug)]
pub struct Recorder {
    max_bytes: usize,
    recent: Recent,
    pods: Pods,
    unclaimed: Unclaimed,
    names: Names,
}

/// What the recorder holds, and what it let go of to stay under its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub bytes: usize,
    pub calls: usize,
    pub pods: usize,
    pub evicted_calls: u64,
    pub evicted_pods: u64,
    /// Calls, spans and execs of pods that had too many.
    pub dropped_evidence: u64,
}

impl Recorder {
    pub fn new(config: &config::Record) -> Self {
        Self {
            max_bytes: config.max_bytes,
            recent: Recent::new(config.max_bytes / RECENT_SHARE),
            pods: Pods::default(),
            unclaimed: Unclaimed::new(config.max_bytes / UNCLAIMED_SHARE),
            names: Names::default(),
        }
    }

    /// Takes in a call, twice at most: when it has started and when it is over, in any order.
    pub fn call(&mut self, event: &CallEvent) {
        let (call, finished) = match event {
            CallEvent::Started(call) => (call, false),
            CallEvent::Finished(call) => (call, true),
        };
        let seen = CallSeen::new(call, finished, &mut self.names);
        // What a late owner told of a call stands when its end comes without one.
        let pod = self.recent.add(seen.clone(), call.owner.as_ref().map(|owner| &owner.pod));
        let trace_id = seen.span().map(|key| key.trace_id);
        let claims = matches!(
            Step::of(seen.kind, seen.method.as_deref()),
            Step::RunSandbox | Step::CreateContainer | Step::StartContainer
        );
        self.file(Piece::Call(seen), pod.as_ref(), trace_id, claims);
        self.shrink();
    }

    /// Takes in whose a call is that came without an owner: its volume or claim was named later.
    pub fn late_owner(&mut self, connection: u64, stream: u32, owner: &Owner) {
        self.set_pod(connection, stream, &owner.pod);
        self.shrink();
    }

    /// Takes in the spans of a request, after `enrich` has set their owners.
    pub fn batch(&mut self, batch: &Batch) {
        // Calls and syncs first: they tell whose trace it is, and their children came before them in the request.
        for inner in [false, true] {
            for (index, span) in batch.request.spans().enumerate() {
                let role = span_reader::role(&span);
                if (role == SpanRole::Inner) == inner {
                    self.span(&span, role, batch.owners.get(index).and_then(Option::as_ref));
                }
            }
        }
        for (call, owner) in batch.calls.iter().zip(&batch.owners) {
            if let (Some(call), Some(owner)) = (call, owner) {
                self.set_pod(call.connection, call.stream, &owner.pod);
            }
        }
        self.shrink();
    }

    /// Takes in a process that the runtime started, when it has started and when it is over.
    pub fn exec(&mut self, exec: &Exec) {
        self.file(Piece::Exec(ExecSeen::new(exec)), exec.owner.as_ref().map(|owner| &owner.pod), None, false);
        self.shrink();
    }

    /// All pods whose start was seen, the newest first. `now_ns` (Unix) is the end of what runs.
    pub fn pods(&self, now_ns: u64) -> Vec<PodSummary> {
        let pulls = self.pulls(now_ns);
        let mut pods: Vec<_> = self
            .pods
            .iter()
            .filter_map(|record| timeline::summarize(&record.pod, &record.evidence, &pulls, now_ns))
            .collect();
        // The time is of fixed width, so its text sorts as it does.
        pods.sort_by(|a, b| {
            b.started_at.cmp(&a.started_at).then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
        });
        pods
    }

    /// The timeline of the newest pod of that name. `None` if no start of such a pod was seen.
    pub fn pod(&self, namespace: &str, name: &str, now_ns: u64) -> Option<PodTimeline> {
        let pulls = self.pulls(now_ns);
        self.pods
            .named(namespace, name)
            .filter_map(|record| timeline::draw(&record.pod, &record.evidence, &pulls, now_ns))
            .max_by(|a, b| a.summary.started_at.cmp(&b.summary.started_at))
    }

    /// Recent calls, the oldest first; with `method` (whole, or its last part) only those; with `since_ns` (Unix) only those
    /// that ended then or later, and those that run.
    pub fn calls(&self, method: Option<&str>, since_ns: Option<u64>) -> Vec<CallEntry> {
        self.recent
            .iter()
            .filter(|call| method.is_none_or(|method| call.is_method(method)))
            .filter(|call| since_ns.is_none_or(|since_ns| call.is_since(since_ns)))
            .map(recent::RecentCall::to_entry)
            .collect()
    }

    pub fn stats(&self) -> Stats {
        Stats {
            bytes: self.bytes(),
            calls: self.recent.len(),
            pods: self.pods.len(),
            evicted_calls: self.recent.evicted,
            evicted_pods: self.pods.evicted,
            dropped_evidence: self.pods.dropped,
        }
    }

    /// A call among the recent ones turns out to be of `pod`.
    fn set_pod(&mut self, connection: u64, stream: u32, pod: &Arc<Pod>) {
        if let Some(seen) = self.recent.set_pod(connection, stream, pod).cloned() {
            self.file(Piece::Call(seen), Some(pod), None, false);
        }
    }

    /// Inner spans without an owner are wanted only below calls; apiserver sends them by the thousand.
    fn span(&mut self, span: &Span<'_>, role: SpanRole, owner: Option<&Owner>) {
        let trace_id = span.trace_id();
        let is_followed = || self.unclaimed.holds(&trace_id) || self.pod_of(&trace_id).is_some();
        if owner.is_some() || role != SpanRole::Inner || is_followed() {
            let seen = span_reader::read(span, role, owner, &mut self.names);
            self.file(Piece::Span(seen), owner.map(|owner| &owner.pod), Some(trace_id), role == SpanRole::Sync);
        }
    }

    /// Puts a piece to the pod that it names, else to the pod of its trace, else aside. `claims` says that all of its
    /// trace is of one pod; a garbage collection or a poll is not.
    fn file(&mut self, piece: Piece, pod: Option<&Arc<Pod>>, trace_id: Option<TraceId>, claims: bool) {
        let known = pod.map(|pod| self.pods.id_of(pod)).or_else(|| self.pod_of(trace_id.as_ref()?));
        match (known, trace_id) {
            (Some(pod), _) => {
                self.pods.add(pod, piece);
                if let Some(trace_id) = trace_id.filter(|_| claims) {
                    for held in self.unclaimed.claim(trace_id, pod) {
                        self.pods.add(pod, held);
                    }
                }
            }
            (None, Some(trace_id)) => self.unclaimed.hold(trace_id, piece),
            // Neither pod nor trace: it is among the recent calls, and in no timeline.
            (None, None) => {}
        }
    }

    fn pod_of(&self, trace_id: &TraceId) -> Option<pods::PodId> {
        self.unclaimed.pod_of(trace_id).filter(|pod| self.pods.contains(*pod))
    }

    fn pulls(&self, now_ns: u64) -> Pulls {
        let of_pods = self.pods.iter().filter(|record| record.has_pull()).flat_map(|record: &PodRecord| {
            let calls = PodCalls::join(&record.evidence.calls, &record.evidence.spans);
            pulls::of_pod(&calls, &record.pod, now_ns).collect::<Vec<_>>()
        });
        let unowned = self.recent.iter().filter(|call| call.pod.is_none() && call.is_pull());
        let unowned = unowned.filter(|call| {
            // Its trace may have told the pod since.
            call.seen.span().and_then(|key| self.pod_of(&key.trace_id)).is_none()
        });
        Pulls::new(of_pods.chain(unowned.filter_map(|call| pulls::unowned(&call.seen, now_ns))).collect())
    }

    fn bytes(&self) -> usize {
        self.recent.bytes() + self.pods.bytes() + self.unclaimed.bytes() + self.names.bytes()
    }

    fn shrink(&mut self) {
        let others = self.bytes() - self.pods.bytes();
        self.pods.shrink(self.max_bytes.saturating_sub(others));
    }
}
