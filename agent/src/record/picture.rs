//! Decides which of a pod's evidence its timeline shows, and where each piece hangs.

use std::collections::{HashMap, HashSet};

use super::bar::{Bar, What};
use super::cover::Interval;
use super::evidence::{ExecSeen, SpanKey, SpanRole, SpanSeen};
use super::pod_calls::{PodCall, PodCalls};
use super::pod_record::Evidence;
use super::start::{self, Start};
use super::step::Step;

/// Longest chain of spans inside spans that is followed; real ones have a handful of links.
const MAX_DEPTH: u32 = 32;

/// What a timeline of this evidence would show.
pub(super) struct Shown {
    /// End of the start; `None` if there is none.
    pub(super) end_ns: Option<u64>,
    pub(super) spans: HashSet<SpanKey>,
}

pub(super) fn shown(evidence: &Evidence, now_ns: u64) -> Shown {
    let Some(picture) = Picture::new(evidence, now_ns) else {
        return Shown { end_ns: None, spans: HashSet::new() };
    };
    let is_shown = |span: &&SpanSeen| match span.role {
        SpanRole::Inner => picture.place(span).is_some(),
        SpanRole::CriClient | SpanRole::CriServer => {
            picture.calls.of_span(span.key).is_some_and(|call| picture.shows_call(&picture.calls.calls[call]))
        }
        SpanRole::Sync | SpanRole::SyncTerminating | SpanRole::SyncTerminated => picture.shows_sync(span),
    };
    let spans = evidence.spans.iter().filter(is_shown).map(|span| span.key).collect();
    Shown { end_ns: Some(picture.start.end_ns), spans }
}

/// What of the evidence is in the picture, and where.
pub(super) struct Picture<'a> {
    evidence: &'a Evidence,
    calls: PodCalls<'a>,
    pub(super) start: Start,
    /// Traces of the syncs that are shown.
    sync_traces: HashSet<[u8; 16]>,
    spans: HashMap<SpanKey, &'a SpanSeen>,
    now_ns: u64,
}

/// Where a span hangs: under a call, or under a sync.
struct Place {
    call: Option<usize>,
    depth: u32,
}

impl<'a> Picture<'a> {
    /// `None` if the evidence shows nothing that started the pod.
    pub(super) fn new(evidence: &'a Evidence, now_ns: u64) -> Option<Self> {
        let calls = PodCalls::join(&evidence.calls, &evidence.spans);
        let start = start::find(&calls.calls, &evidence.spans, now_ns)?;
        let spans = evidence.spans.iter().map(|span| (span.key, span)).collect();
        let mut picture = Self { evidence, calls, start, sync_traces: HashSet::new(), spans, now_ns };
        picture.sync_traces = evidence
            .spans
            .iter()
            .filter(|span| span.is_sync() && picture.shows_sync(span))
            .map(|span| span.key.trace_id)
            .collect();
        Some(picture)
    }

    /// Everything but the pauses.
    pub(super) fn bars(&self) -> Vec<Bar<'a>> {
        let calls =
            self.calls.calls.iter().enumerate().filter(|(_, call)| self.shows_call(call)).map(|(index, call)| Bar {
                interval: self.call_interval(index),
                depth: self.call_depth(index),
                what: What::Call(*call),
            });
        let spans = self.evidence.spans.iter().filter_map(|span| self.span_bar(span));
        let execs = self.evidence.execs.iter().filter_map(|exec| self.exec_bar(exec));
        calls.chain(spans).chain(execs).collect()
    }

    /// A sync, or a span inside of a sync or a call; spans of calls are part of these.
    fn span_bar(&self, span: &'a SpanSeen) -> Option<Bar<'a>> {
        let whole = Interval::new(span.started_ns, span.ended_ns.max(span.started_ns));
        if span.is_sync() {
            return self.shows_sync(span).then_some(Bar { interval: whole, depth: 0, what: What::Sync(span) });
        }
        let place = if span.role == SpanRole::Inner { self.place(span)? } else { return None };
        let Some(call) = place.call else {
            return Some(Bar { interval: whole, depth: place.depth, what: What::Sync(span) });
        };
        let (interval, outlives_call) = whole.cut_to(self.call_interval(call));
        Some(Bar { interval, depth: place.depth, what: What::Inner { span, outlives_call } })
    }

    /// Calls that only look are shown within the start; others whenever they were.
    fn shows_call(&self, call: &PodCall<'_>) -> bool {
        if call.step() != Step::Inspect {
            return true;
        }
        let started_ns = call.started_ns();
        (self.start.begin_ns..self.start.end_ns).contains(&started_ns) && !self.evidence.is_late(started_ns)
    }

    /// A sync after the start is shown if it ended the pod or made a call that is shown.
    fn shows_sync(&self, sync: &SpanSeen) -> bool {
        sync.role != SpanRole::Sync
            || (self.start.begin_ns..self.start.end_ns).contains(&sync.started_ns)
            || self
                .calls
                .calls
                .iter()
                .any(|call| call.step() != Step::Inspect && call.trace_id() == Some(sync.key.trace_id))
    }

    fn call_depth(&self, index: usize) -> u32 {
        u32::from(self.calls.calls[index].trace_id().is_some_and(|trace| self.sync_traces.contains(&trace)))
    }

    fn call_interval(&self, index: usize) -> Interval {
        let call = &self.calls.calls[index];
        Interval::new(call.started_ns(), call.ended_ns().unwrap_or(self.now_ns).max(call.started_ns()))
    }

    /// Follows the parents up to a call or a sync; a span whose parents are missing hangs under the call of its trace that
    /// it falls into. `None`: not in the picture.
    fn place(&self, span: &SpanSeen) -> Option<Place> {
        let mut parent = span.parent_key();
        for above in 1..=MAX_DEPTH {
            let Some(key) = parent else { break };
            if let Some(call) = self.calls.of_span(key) {
                return self.under_call(call, above);
            }
            let Some(parent_span) = self.spans.get(&key) else { break };
            if parent_span.is_sync() {
                return self.shows_sync(parent_span).then_some(Place { call: None, depth: above });
            }
            parent = parent_span.parent_key();
        }
        let call = self.calls.calls.iter().rposition(|call| {
            call.trace_id() == Some(span.key.trace_id)
                && call.started_ns() <= span.started_ns
                && span.ended_ns <= call.ended_ns().unwrap_or(self.now_ns)
        })?;
        self.under_call(call, 1)
    }

    fn under_call(&self, call: usize, above: u32) -> Option<Place> {
        self.shows_call(&self.calls.calls[call])
            .then(|| Place { call: Some(call), depth: self.call_depth(call) + above })
    }

    /// An exec hangs under the call that ran when it started, below the execs that led to it, and ends with the call at the
    /// latest: shims and monitors live on, but what they do then is no part of it. One without a call has no place.
    fn exec_bar(&self, exec: &'a ExecSeen) -> Option<Bar<'a>> {
        let call = self.calls.calls.iter().enumerate().rposition(|(index, call)| {
            let interval = self.call_interval(index);
            (interval.from_ns..interval.to_ns.max(interval.from_ns + 1)).contains(&exec.started_ns)
                && call.container_id().zip(exec.container_id.as_deref()).is_none_or(|(call, exec)| call == exec)
                && self.shows_call(call)
        })?;
        let bounds = self.call_interval(call);
        let whole = Interval::new(exec.started_ns, exec.ended_ns.unwrap_or(u64::MAX));
        let (interval, outlives_call) = whole.cut_to(bounds);
        let (ancestors, first) = self.ancestors(exec, bounds);
        let depth = self.call_depth(call) + 1 + ancestors;
        Some(Bar { interval, depth, what: What::Exec { exec, first, outlives_call } })
    }

    /// How many processes of the call led to this one, and the first of them.
    fn ancestors(&self, exec: &'a ExecSeen, call: Interval) -> (u32, &'a ExecSeen) {
        let mut count = 0;
        let mut child = exec;
        while count < MAX_DEPTH {
            let parent = self.evidence.execs.iter().find(|parent| {
                parent.pid == child.parent_pid
                    && parent.pid != child.pid
                    && (call.from_ns..=child.started_ns).contains(&parent.started_ns)
                    && parent.ended_ns.is_none_or(|ended_ns| ended_ns >= child.started_ns)
            });
            let Some(parent) = parent else { break };
            count += 1;
            child = parent;
        }
        (count, child)
    }
}
