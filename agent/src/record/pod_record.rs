//! The evidence of one pod: grows by the piece, lets go of what no timeline shows.

use std::sync::Arc;

use crate::call::SocketKind;
use crate::pod::Pod;

use super::evidence::{CallSeen, ExecSeen, SpanRole, SpanSeen};
use super::picture;
use super::start::UNNAMED_QUIET_NS;
use super::step::Step;

/// Most calls, spans and execs kept of one pod. A start with ten containers and containerd 2's inner spans is under 600.
pub(super) const MAX_EVIDENCE: usize = 2048;

/// A pod's evidence is first looked through for what no timeline needs when it has this many pieces.
const FIRST_COMPACTION: usize = 256;

/// kubelet and the runtimes export at least every 5 s and retry for 10 s; a span whose parent has not come by then has none.
const PARENT_PATIENCE_NS: u64 = 60_000_000_000;

/// What an entry of a map takes beside its key and value, or an allocation beside its bytes; rounded up.
pub(super) const OVERHEAD_BYTES: usize = 64;

/// All that was seen of one pod, in no order.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) calls: Vec<CallSeen>,
    pub(super) spans: Vec<SpanSeen>,
    pub(super) execs: Vec<ExecSeen>,
    /// End of the first StartContainer that did not fail.
    first_running_ns: Option<u64>,
}

#[derive(Debug)]
pub(super) struct PodRecord {
    pub(super) pod: Arc<Pod>,
    pub(super) evidence: Evidence,
    /// Bytes of texts in the evidence.
    heap_bytes: usize,
    /// Start of the newest piece of evidence.
    pub(super) newest_ns: u64,
    next_compaction: usize,
    compacted_ns: u64,
    /// As counted last.
    pub(super) charged_bytes: usize,
}

/// A piece of evidence.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Call(CallSeen),
    Span(SpanSeen),
    Exec(ExecSeen),
}

impl PodRecord {
    pub(super) fn new(pod: Arc<Pod>) -> Self {
        let mut record = Self {
            pod,
            evidence: Evidence::default(),
            heap_bytes: 0,
            newest_ns: 0,
            next_compaction: FIRST_COMPACTION,
            compacted_ns: 0,
            charged_bytes: 0,
        };
        record.charge();
        record
    }

    /// Counts anew what the record takes.
    pub(super) fn charge(&mut self) -> usize {
        self.charged_bytes = self.bytes();
        self.charged_bytes
    }

    fn bytes(&self) -> usize {
        let pod = &self.pod;
        let attributes: usize =
            pod.attributes.iter().map(|(key, value)| key.len() + value.len() + OVERHEAD_BYTES).sum();
        // The name is held twice: in the pod, and as the key under which it is found.
        let names = 2 * (pod.namespace.len() + pod.name.len()) + pod.uid.len() + 2 * OVERHEAD_BYTES;
        size_of::<Self>() + size_of::<Pod>() + attributes + names + self.evidence.struct_bytes() + self.heap_bytes
    }

    pub(super) fn has_pull(&self) -> bool {
        let is_pull = |method: &str| method.ends_with("/PullImage");
        self.evidence.calls.iter().any(|call| call.method.as_deref().is_some_and(is_pull))
            || self.evidence.spans.iter().any(|span| is_pull(&span.name))
    }

    /// How many pieces were dropped.
    pub(super) fn add(&mut self, piece: Piece) -> u64 {
        let started_ns = piece.started_ns();
        let changes_nothing = match &piece {
            Piece::Exec(exec) => !self.evidence.is_of_step(exec.started_ns),
            piece => piece.is_inspection(),
        };
        if changes_nothing && self.evidence.is_late(started_ns) {
            return 0; // no timeline shows it
        }
        let Some(piece) = self.update_known(piece) else { return 0 };
        let mut dropped = 0;
        let waited = self.newest_ns >= self.compacted_ns.saturating_add(PARENT_PATIENCE_NS);
        if self.evidence.len() >= self.next_compaction && (self.next_compaction < MAX_EVIDENCE || waited) {
            dropped += self.compact();
        }
        if self.evidence.len() >= MAX_EVIDENCE {
            return dropped + 1;
        }
        self.newest_ns = self.newest_ns.max(started_ns);
        self.heap_bytes += piece.heap_bytes();
        self.evidence.note_running(&piece);
        match piece {
            Piece::Call(call) => self.evidence.calls.push(call),
            Piece::Span(span) => self.evidence.spans.push(span),
            Piece::Exec(exec) => self.evidence.execs.push(exec),
        }
        dropped
    }

    /// Takes `piece` in if it is about something already known, else gives it back.
    fn update_known(&mut self, piece: Piece) -> Option<Piece> {
        let evidence = &mut self.evidence;
        match piece {
            Piece::Call(call) => {
                let Some(known) = evidence.calls.iter_mut().rev().find(|known| known.is_same_call(&call)) else {
                    return Some(Piece::Call(call));
                };
                self.heap_bytes -= known.heap_bytes();
                known.update(call);
                self.heap_bytes += known.heap_bytes();
                let updated = Piece::Call(known.clone());
                evidence.note_running(&updated);
                None
            }
            // kubelet sends a batch again when its answer was lost.
            Piece::Span(span) => {
                (!evidence.spans.iter().rev().any(|known| known.key == span.key)).then_some(Piece::Span(span))
            }
            Piece::Exec(exec) => {
                let Some(known) = evidence.execs.iter_mut().rev().find(|known| known.is_same_exec(&exec)) else {
                    return Some(Piece::Exec(exec));
                };
                self.heap_bytes -= known.heap_bytes();
                known.update(exec);
                self.heap_bytes += known.heap_bytes();
                None
            }
        }
    }

    /// Lets go of what no timeline shows; if the pod still has much, of the oldest that came after its start. How many
    /// pieces that a timeline would have shown were dropped.
    fn compact(&mut self) -> u64 {
        let settled_ns = self.newest_ns.saturating_sub(PARENT_PATIENCE_NS);
        let shown = picture::shown(&self.evidence, self.newest_ns);
        if shown.end_ns.is_some() {
            self.evidence.spans.retain(|span| span.ended_ns >= settled_ns || shown.spans.contains(&span.key));
        } else {
            // Nothing started here yet: only what just came may turn out to belong to a start.
            self.evidence.retain(|started_ns| started_ns >= settled_ns);
        }
        let excess = self.evidence.len().saturating_sub(MAX_EVIDENCE / 2);
        let dropped = match shown.end_ns {
            Some(end_ns) if excess > 0 => self.evidence.drop_oldest_after(end_ns, excess),
            _ => 0,
        };
        self.evidence.shrink();
        self.heap_bytes = self.evidence.heap_bytes();
        self.compacted_ns = self.newest_ns;
        self.next_compaction = (2 * self.evidence.len()).clamp(FIRST_COMPACTION, MAX_EVIDENCE);
        dropped
    }
}

impl Evidence {
    /// Whether something that changes nothing and began at `started_ns` came long after the pod's first container ran. This
    /// bounds what probes and status calls take, and holds whatever else becomes known later.
    pub(super) fn is_late(&self, started_ns: u64) -> bool {
        self.first_running_ns.is_some_and(|running_ns| started_ns > running_ns.saturating_add(UNNAMED_QUIET_NS))
    }

    /// Whether a process that started then was started for a call that may change something. Such a call is known before: it is
    /// told when it starts.
    fn is_of_step(&self, started_ns: u64) -> bool {
        self.calls.iter().any(|call| {
            let is_step = call.method.is_none() || Step::of(call.kind, call.method.as_deref()) != Step::Inspect;
            is_step && call.started_ns <= started_ns && (!call.finished || started_ns <= call.ended_ns)
        })
    }

    fn note_running(&mut self, piece: &Piece) {
        if let Some(running_ns) = piece.container_running_ns() {
            self.first_running_ns = Some(self.first_running_ns.map_or(running_ns, |first| first.min(running_ns)));
        }
    }

    fn len(&self) -> usize {
        self.calls.len() + self.spans.len() + self.execs.len()
    }

    fn struct_bytes(&self) -> usize {
        self.calls.capacity() * size_of::<CallSeen>()
            + self.spans.capacity() * size_of::<SpanSeen>()
            + self.execs.capacity() * size_of::<ExecSeen>()
    }

    fn heap_bytes(&self) -> usize {
        self.calls.iter().map(CallSeen::heap_bytes).sum::<usize>()
            + self.spans.iter().map(SpanSeen::heap_bytes).sum::<usize>()
            + self.execs.iter().map(ExecSeen::heap_bytes).sum::<usize>()
    }

    fn drop_oldest_after(&mut self, end_ns: u64, excess: usize) -> u64 {
        let starts = self.calls.iter().map(|call| call.started_ns);
        let starts = starts.chain(self.spans.iter().map(|span| span.started_ns));
        let starts = starts.chain(self.execs.iter().map(|exec| exec.started_ns));
        let mut later: Vec<_> = starts.filter(|&started_ns| started_ns >= end_ns).collect();
        later.sort_unstable();
        let Some(&last_ns) = later.get(excess.min(later.len()).wrapping_sub(1)) else { return 0 };
        let before = self.len();
        self.retain(|started_ns| !(end_ns..=last_ns).contains(&started_ns));
        (before - self.len()) as u64
    }

    /// `keep` is told when a piece started.
    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.calls.retain(|call| keep(call.started_ns));
        self.spans.retain(|span| keep(span.started_ns));
        self.execs.retain(|exec| keep(exec.started_ns));
    }

    fn shrink(&mut self) {
        self.calls.shrink_to_fit();
        self.spans.shrink_to_fit();
        self.execs.shrink_to_fit();
    }
}

impl Piece {
    pub(super) fn started_ns(&self) -> u64 {
        match self {
            Self::Call(call) => call.started_ns,
            Self::Span(span) => span.started_ns,
            Self::Exec(exec) => exec.started_ns,
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Call(call) => call.heap_bytes(),
            Self::Span(span) => span.heap_bytes(),
            Self::Exec(exec) => exec.heap_bytes(),
        }
    }

    fn step(&self) -> Option<Step> {
        match self {
            Self::Call(call) => Some(Step::of(call.kind, call.method.as_deref())),
            Self::Span(span) if matches!(span.role, SpanRole::CriClient | SpanRole::CriServer) => {
                Some(Step::of(SocketKind::Cri, Some(&span.name)))
            }
            Self::Span(_) | Self::Exec(_) => None,
        }
    }

    /// A call, or the span of one, that changes nothing. An unnamed call may still turn out to do so.
    fn is_inspection(&self) -> bool {
        let is_named = !matches!(self, Self::Call(call) if call.method.is_none());
        is_named && self.step() == Some(Step::Inspect)
    }

    /// When a container ran, if this is a StartContainer that is over and did not fail.
    fn container_running_ns(&self) -> Option<u64> {
        if self.step() != Some(Step::StartContainer) {
            return None;
        }
        match self {
            Self::Call(call) => (call.finished && call.status.unwrap_or(0) == 0).then_some(call.ended_ns),
            Self::Span(span) => (!span.error && span.status.unwrap_or(0) == 0).then_some(span.ended_ns),
            Self::Exec(_) => None,
        }
    }
}
