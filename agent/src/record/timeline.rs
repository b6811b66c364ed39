//! Draws a pod's timeline from its evidence: a pure function, so that the order in which evidence came changes nothing.

use std::collections::{HashMap, HashSet};

use crate::api::{Entry, EntryKind, PodSummary, PodTimeline, Slowest};
use crate::pod::Pod;

use super::cover::{self, Interval};
use super::entries::{self, Beside};
use super::evidence::{ExecSeen, SpanKey, SpanRole, SpanSeen};
use super::pod_calls::{PodCall, PodCalls};
use super::pod_record::Evidence;
use super::pulls::Pulls;
use super::start::{self, Start};
use super::step::Step;

/// Longest chain of spans inside spans that is followed; real ones have a handful of links.
const MAX_DEPTH: u32 = 32;

/// `None` if the evidence shows nothing that started the pod.
pub(super) fn draw(pod: &Pod, evidence: &Evidence, pulls: &Pulls, now_ns: u64) -> Option<PodTimeline> {
    let picture = Picture::new(evidence, now_ns)?;
    let start = picture.start;
    let window = Interval::new(start.begin_ns, start.end_ns);
    let mut entries = picture.entries();
    let covering = || entries.iter().filter(|entry| covers(entry.kind)).map(interval);
    let open = cover::gaps(window, covering());
    let explainer = Explainer { pod, entries: &entries, pulls, window, now_ns };
    let explained: Vec<_> = open.into_iter().flat_map(|gap| explainer.explain(gap)).collect();
    entries.extend(explained);
    entries.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    let summary = PodSummary {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        state: start.state,
        started_at: rfc3339(start.begin_ns),
        duration_seconds: seconds(window.length_ns()),
        accounted_ratio: cover::covered_ratio(window, entries.iter().filter(|entry| covers(entry.kind)).map(interval)),
        slowest: slowest(&entries, window),
    };
    Some(PodTimeline { summary, entries })
}

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
struct Picture<'a> {
    evidence: &'a Evidence,
    calls: PodCalls<'a>,
    start: Start,
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
    fn new(evidence: &'a Evidence, now_ns: u64) -> Option<Self> {
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

    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (index, call) in self.calls.calls.iter().enumerate() {
            if self.shows_call(call) {
                entries.push(entries::call(call, self.call_depth(index), self.now_ns));
            }
        }
        for span in &self.evidence.spans {
            if span.is_sync() {
                if self.shows_sync(span) {
                    entries.push(entries::sync(span, 0));
                }
            } else if span.role == SpanRole::Inner
                && let Some(place) = self.place(span)
            {
                entries.push(match place.call {
                    Some(call) => entries::inner(span, place.depth, self.call_interval(call)),
                    None => entries::sync(span, place.depth),
                });
            }
        }
        entries.extend(self.evidence.execs.iter().filter_map(|exec| self.exec_entry(exec)));
        entries
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

    /// An exec hangs under the call that ran when it started, below the execs that led to it. One without a call has no
    /// place: nothing tells where its part in the start ends.
    fn exec_entry(&self, exec: &ExecSeen) -> Option<Entry> {
        let call = self.calls.calls.iter().enumerate().rposition(|(index, call)| {
            let interval = self.call_interval(index);
            (interval.from_ns..interval.to_ns.max(interval.from_ns + 1)).contains(&exec.started_ns)
                && call.container_id().zip(exec.container_id.as_deref()).is_none_or(|(call, exec)| call == exec)
                && self.shows_call(call)
        })?;
        let depth = self.call_depth(call) + 1 + self.ancestors(exec, self.call_interval(call));
        Some(entries::exec(exec, depth, self.call_interval(call)))
    }

    fn ancestors(&self, exec: &ExecSeen, call: Interval) -> u32 {
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
        count
    }
}

/// Cuts the gaps into the waits that the record proves and what is left.
struct Explainer<'e> {
    pod: &'e Pod,
    entries: &'e [Entry],
    pulls: &'e Pulls,
    window: Interval,
    now_ns: u64,
}

impl Explainer<'_> {
    fn explain(&self, gap: Interval) -> Vec<Entry> {
        let outermost = |entry: &&Entry| std::cmp::Reverse(entry.depth);
        let covering = || self.entries.iter().filter(|entry| covers(entry.kind));
        let after = covering().filter(|entry| entry.end_unix_nano == gap.from_ns).max_by_key(outermost);
        let before = covering().filter(|entry| entry.start_unix_nano == gap.to_ns).max_by_key(outermost);
        let opening = self.opening_sync(gap);
        let beside = Beside { after, before, opening };
        let waits = match before {
            Some(pull) if pull.kind == EntryKind::Cri && pull.name.ends_with("/PullImage") => {
                let connection = pull.attributes.get("connection").and_then(serde_json::Value::as_u64);
                self.pulls.before(self.pod, connection, gap)
            }
            _ => Vec::new(),
        };
        let depth = beside.depth();
        let is_running = gap.to_ns == self.now_ns && before.is_none();
        let left = cover::gaps(gap, waits.iter().map(|&(part, _)| part));
        let gaps = left.into_iter().map(|part| entries::gap(part, &beside, depth, is_running));
        waits.iter().map(|&(part, pull)| entries::wait(part, pull, depth)).chain(gaps).collect()
    }

    /// The first gap follows no call, but the sync that the start began with.
    fn opening_sync(&self, gap: Interval) -> Option<&Entry> {
        let opens = |entry: &&Entry| entry.kind == EntryKind::Sync && entry.start_unix_nano == gap.from_ns;
        self.entries.iter().filter(|_| gap.from_ns == self.window.from_ns).find(opens)
    }
}

/// Whether entries of this kind account for time. A sync spans everything and explains nothing.
const fn covers(kind: EntryKind) -> bool {
    !matches!(kind, EntryKind::Sync | EntryKind::Gap)
}

const fn interval(entry: &Entry) -> Interval {
    Interval::new(entry.start_unix_nano, entry.end_unix_nano)
}

/// Parents before children, then by what is always the same.
fn sort_key(entry: &Entry) -> (u64, u32, std::cmp::Reverse<u64>, &str, String) {
    let identity = ["connection", "stream", "client_span_id", "span_id", "pid"]
        .map(|key| entry.attributes.get(key).map(ToString::to_string).unwrap_or_default());
    (entry.start_unix_nano, entry.depth, std::cmp::Reverse(entry.end_unix_nano), &entry.name, identity.join(" "))
}

fn slowest(entries: &[Entry], window: Interval) -> Option<Slowest> {
    entries
        .iter()
        .filter(|entry| entry.kind != EntryKind::Sync)
        .filter_map(|entry| Some((interval(entry).within(window)?.length_ns(), entry)))
        // A parent is at least as long as its children: of equals the first and outermost is meant.
        .max_by_key(|&(length_ns, entry)| (length_ns, std::cmp::Reverse((entry.depth, entry.start_unix_nano))))
        .map(|(length_ns, entry)| Slowest { name: entry.name.clone(), seconds: seconds(length_ns) })
}

fn seconds(length_ns: u64) -> f64 {
    length_ns as f64 / 1e9
}

fn rfc3339(unix_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns))
        .map(|time| format!("{time:.9}"))
        .expect("64 bits of nanoseconds end in the year 2554, within a timestamp's range")
}
