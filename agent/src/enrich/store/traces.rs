//! Which traces belong wholly to one pod.
//!
//! kubelet works in traces of several kinds, and only some of them are one pod's:
//!
//! ```text
//!  syncPod, syncTerminating…, syncTerminated… ─► all their calls are the pod's, the lists among them too
//!  garbage collection                         ─► lists first, then stops and removes things of several pods
//!  a poll of the node's state                 ─► each call a trace of its own
//! ```
//!
//! The root's span comes last, so until it does a trace is judged by what it did: only `syncPod` creates, and only
//! `syncTerminatingPod` begins with a stop. Anything else (a status, a removal) tells whose that one call is, not whose the
//! trace is, and neither does evidence of a second pod.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;

use super::pods::{PodKey, Pods};
use crate::enrich::names::Role;
use crate::enrich::source::Source;

/// What a span or a call tells of its trace.
#[derive(Debug, Clone, Copy)]
pub(in crate::enrich) enum Evidence {
    /// The root is a span of the `syncPod` family.
    Root { pod: PodKey, ended_ns: u64 },
    /// The root is a span of garbage collection.
    Node,
    /// A CRI call was made; its pod, if known, and who told.
    Call { role: Role, started_ns: u64, pod: Option<(PodKey, Source)> },
}

/// How surely a trace is one pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Nothing,
    BeganWithStop,
    Created,
    Root,
}

#[derive(Debug)]
struct Trace {
    strength: Strength,
    /// The pod at that strength.
    pod: Option<PodKey>,
    source: Source,
    /// Any pod there was evidence of.
    seen: Option<PodKey>,
    /// There was evidence of more than one pod, or of a root that is the node's.
    shared: bool,
    /// Start of the first call known, Unix nanoseconds.
    first_call_ns: u64,
    /// End of the `syncPod` span; 0 while not seen.
    root_ended_ns: u64,
    /// Spans that have passed without a pod.
    unowned: u32,
    /// Asked for since the eviction's hand last came by.
    recent: bool,
}

/// Traces by id; a bounded table with second-chance eviction.
#[derive(Debug, Default)]
pub(in crate::enrich) struct Traces {
    known: HashMap<[u8; 16], Trace>,
    order: VecDeque<[u8; 16]>,
    evicted: u64,
    conflicts: u64,
    early: u64,
}

/// Most traces kept: 7/8 of a power of two, where the hash table grows; some 0.8 MiB. kubelet makes about 5 traces a
/// second and 10 for each pod that starts, so this holds minutes, and 600 pods that start at once.
const MAX_TRACES: usize = 7168;

impl Traces {
    /// The pod that the whole trace belongs to.
    pub(super) fn pod(&self, trace_id: &[u8; 16]) -> Option<PodKey> {
        let trace = self.known.get(trace_id)?;
        (trace.strength == Strength::Root || !trace.shared).then_some(trace.pod).flatten()
    }

    /// Whether the trace is one pod's for good: no span that is still to come can change that.
    pub(in crate::enrich) fn is_settled(&self, trace_id: &[u8; 16]) -> bool {
        self.known.get(trace_id).is_some_and(|trace| trace.strength > Strength::BeganWithStop)
    }

    /// Whether the trace is the node's or of several pods, so that it is no one's.
    pub(in crate::enrich) fn is_shared(&self, trace_id: &[u8; 16]) -> bool {
        self.known.get(trace_id).is_some_and(|trace| trace.shared && trace.strength != Strength::Root)
    }

    /// Any pod that something in the trace was of.
    pub(super) fn any_pod(&self, trace_id: &[u8; 16]) -> Option<PodKey> {
        self.known.get(trace_id)?.seen
    }

    /// Counts a span that passes without a pod, in case its trace turns out to be one's.
    pub(in crate::enrich) fn passed_unowned(&mut self, trace_id: [u8; 16]) {
        self.trace(trace_id).unowned += 1;
    }

    /// Spans that passed before their trace was known to be a pod's.
    pub(in crate::enrich) fn early(&self) -> u64 {
        self.early
    }

    /// Whether a span that started then began after the trace's `syncPod` was over.
    pub(in crate::enrich) fn is_detached(&self, trace_id: &[u8; 16], started_ns: u64) -> bool {
        self.known.get(trace_id).is_some_and(|trace| trace.root_ended_ns != 0 && started_ns > trace.root_ended_ns)
    }

    pub(super) fn conflicts(&self) -> u64 {
        self.conflicts
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn note(&mut self, trace_id: [u8; 16], evidence: Evidence, pods: &mut Pods) {
        let trace = self.trace(trace_id);
        trace.recent = true;
        let conflict = match evidence {
            Evidence::Root { pod, ended_ns } => {
                trace.root_ended_ns = ended_ns;
                trace.believe(Strength::Root, pod, Source::Span, pods)
            }
            Evidence::Node => {
                trace.shared = true;
                false
            }
            Evidence::Call { role, started_ns, pod } => trace.called(role, started_ns, pod, pods),
        };
        let early = match trace.pod {
            Some(_) if !trace.shared || trace.strength == Strength::Root => std::mem::take(&mut trace.unowned),
            _ => 0,
        };
        self.early += u64::from(early);
        self.conflicts += u64::from(conflict);
    }

    fn trace(&mut self, trace_id: [u8; 16]) -> &mut Trace {
        if self.order.len() >= MAX_TRACES && !self.known.contains_key(&trace_id) {
            self.evict_one();
        }
        match self.known.entry(trace_id) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                self.order.push_back(trace_id);
                slot.insert(Trace::new())
            }
        }
    }

    fn evict_one(&mut self) {
        while let Some(oldest) = self.order.pop_front() {
            match self.known.get_mut(&oldest) {
                Some(trace) if trace.recent && trace.pod.is_some() => {
                    trace.recent = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    self.known.remove(&oldest);
                    self.evicted += 1;
                    return;
                }
            }
        }
    }
}

impl Trace {
    fn new() -> Self {
        Self {
            strength: Strength::Nothing,
            pod: None,
            source: Source::Trace,
            seen: None,
            shared: false,
            first_call_ns: u64::MAX,
            root_ended_ns: 0,
            unowned: 0,
            recent: false,
        }
    }

    /// Returns whether sources contradicted each other.
    fn called(&mut self, role: Role, started_ns: u64, pod: Option<(PodKey, Source)>, pods: &mut Pods) -> bool {
        let is_first = started_ns <= self.first_call_ns;
        self.first_call_ns = self.first_call_ns.min(started_ns);
        if is_first && self.strength == Strength::BeganWithStop && role != Role::Stops {
            (self.strength, self.pod) = (Strength::Nothing, None);
        }
        let Some((pod, source)) = pod else { return false };
        match self.seen {
            Some(seen) if !pods.same_pod(seen, pod) => self.shared = true,
            _ => self.seen = Some(pod),
        }
        match role {
            Role::Creates => self.believe(Strength::Created, pod, source, pods),
            Role::Stops if is_first => self.believe(Strength::BeganWithStop, pod, source, pods),
            _ => false,
        }
    }

    /// Believes that the trace is the pod's. Of two pods one that began with a stop loses, then the less trusted source,
    /// then the weaker evidence, then the later. Returns whether sources contradicted each other.
    fn believe(&mut self, strength: Strength, pod: PodKey, source: Source, pods: &mut Pods) -> bool {
        let Some(known) = self.pod else {
            (self.strength, self.pod, self.source) = (strength, Some(pod), source);
            return false;
        };
        if pods.same_pod(known, pod) {
            self.strength = self.strength.max(strength);
            self.source = self.source.min(source);
            return false;
        }
        let is_sure = |strength| strength > Strength::BeganWithStop;
        let (new, old) = ((is_sure(strength), self.source, strength), (is_sure(self.strength), source, self.strength));
        if new > old {
            (self.strength, self.pod, self.source) = (strength, Some(pod), source);
        }
        true
    }
}
