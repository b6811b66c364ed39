//! The CRI calls of each pod: what spans of ours may hang below, and what is known of the pod.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use spanlet_otlp::{Span, SpanKind};

use super::plugins::Parent;
use crate::call::{Call, SocketKind, Traceparent};
use crate::pod::{Owner, Pod};

/// Most pods whose calls are kept: a full node's; those of a pod that was forgotten are long over.
const MAX_PODS: usize = 256;

/// Most calls kept of one pod: a start has six, and a few probes run beside it.
const MAX_CALLS: usize = 16;

/// Most starts kept of one pod: a container that starts again makes another.
const MAX_STARTS: usize = 4;

/// How long before its first CRI call a pod's start may have begun: volumes are attached and mounted before.
const BEFORE_START_NS: u64 = 600_000_000_000;

/// A CRI call whose client span was sampled.
#[derive(Debug, Clone)]
pub(super) struct SampledCall {
    connection: u64,
    stream: u32,
    started_ns: u64,
    /// `None` while it runs.
    pub(super) ended_ns: Option<u64>,
    pub(super) traceparent: Traceparent,
    container_id: Option<Box<str>>,
}

/// One `syncPod` that created something.
#[derive(Debug)]
struct Start {
    trace_id: [u8; 16],
    first_ns: u64,
    /// End of the last creating call; `u64::MAX` while one runs.
    last_ns: u64,
    /// The span above the calls, once one of their spans has told it.
    sync: Option<[u8; 8]>,
}

#[derive(Debug, Default)]
struct OnePod {
    /// What was known of it at its last call.
    newest: Arc<Pod>,
    calls: VecDeque<SampledCall>,
    starts: VecDeque<Start>,
}

/// What is known of a plugin call's parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Parent(Parent),
    /// More than one start was under way.
    Ambiguous,
    /// It may yet come.
    NotYet,
}

/// By pod uid.
#[derive(Debug, Default)]
pub(super) struct PodCalls {
    pods: HashMap<Box<str>, OnePod>,
    order: VecDeque<Box<str>>,
}

impl PodCalls {
    /// Takes in a call of any kind.
    pub(super) fn call(&mut self, call: &Call, is_finished: bool) {
        let (SocketKind::Cri, Some(owner)) = (call.socket.kind, &call.owner) else { return };
        let Some(pod) = self.pod(&owner.pod) else { return };
        pod.newest = Arc::clone(&owner.pod);
        let Some(traceparent) = call.traceparent.filter(Traceparent::is_sampled) else { return };
        let ended_ns = is_finished.then_some(call.ended_ns);
        if creates(call) {
            pod.started(traceparent.trace_id, call.started_ns, ended_ns);
        }
        let is_same = |known: &&mut SampledCall| (known.connection, known.stream) == (call.connection, call.stream);
        if let Some(known) = pod.calls.iter_mut().find(is_same) {
            known.ended_ns = ended_ns.or(known.ended_ns);
            return;
        }
        if pod.calls.len() == MAX_CALLS {
            pod.calls.pop_front();
        }
        pod.calls.push_back(SampledCall {
            connection: call.connection,
            stream: call.stream,
            started_ns: call.started_ns,
            ended_ns,
            traceparent,
            container_id: owner.container.as_ref().map(|container| container.id.as_str().into()),
        });
    }

    /// Takes in a span that was joined to a call: the client's tells what it is a child of.
    pub(super) fn joined(&mut self, pod: &Pod, call: &Call, span: &Span<'_>) {
        if span.kind() != SpanKind::Client || !creates(call) {
            return;
        }
        let (Some(pod), Some(parent)) = (self.pods.get_mut(pod.uid.as_str()), span.parent_span_id()) else { return };
        let trace_id = span.trace_id();
        if let Some(start) = pod.starts.iter_mut().find(|start| start.trace_id == trace_id) {
            start.sync = Some(parent);
        }
    }

    /// The sampled call of the owner's that was under way at this time; the container's own before others of its pod.
    pub(super) fn under_way(&self, owner: &Owner, at_ns: u64) -> Option<&SampledCall> {
        let pod = self.pods.get(owner.pod.uid.as_str())?;
        let container = owner.container.as_ref().map(|container| container.id.as_str());
        let is_under_way =
            |call: &&SampledCall| call.started_ns <= at_ns && call.ended_ns.is_none_or(|ended_ns| at_ns <= ended_ns);
        let is_its = |call: &SampledCall| container.is_some() && call.container_id.as_deref() == container;
        pod.calls.iter().filter(is_under_way).max_by_key(|call| (is_its(call), call.started_ns))
    }

    /// The owner as far as it is known now: a volume's path tells a uid, and only the pod's first call its name.
    pub(super) fn completed(&self, owner: Owner) -> Owner {
        match self.pods.get(owner.pod.uid.as_str()) {
            Some(known) if owner.pod.name.is_empty() => Owner { pod: Arc::clone(&known.newest), ..owner },
            _ => owner,
        }
    }

    /// The start of the pod that a plugin's call was part of.
    pub(super) fn start_of(&self, owner: &Owner, call: &Call) -> Found {
        let Some(pod) = self.pods.get(owner.pod.uid.as_str()) else { return Found::NotYet };
        let mut covering = pod.starts.iter().filter(|start| start.covers(call));
        match (covering.next(), covering.next()) {
            (None, _) => Found::NotYet,
            (Some(_), Some(_)) => Found::Ambiguous,
            (Some(Start { trace_id, sync: Some(span_id), .. }), None) => {
                Found::Parent(Parent { trace_id: *trace_id, span_id: *span_id })
            }
            (Some(_), None) => Found::NotYet,
        }
    }

    /// `None` for a pod whose uid is not known.
    fn pod(&mut self, pod: &Pod) -> Option<&mut OnePod> {
        let uid = pod.uid.as_str();
        if uid.is_empty() {
            return None;
        }
        if !self.pods.contains_key(uid) {
            if self.order.len() == MAX_PODS
                && let Some(oldest) = self.order.pop_front()
            {
                self.pods.remove(&oldest);
            }
            self.order.push_back(uid.into());
            self.pods.insert(uid.into(), OnePod::default());
        }
        self.pods.get_mut(uid)
    }
}

impl OnePod {
    fn started(&mut self, trace_id: [u8; 16], started_ns: u64, ended_ns: Option<u64>) {
        let last_ns = ended_ns.unwrap_or(u64::MAX);
        if let Some(start) = self.starts.iter_mut().find(|start| start.trace_id == trace_id) {
            start.first_ns = start.first_ns.min(started_ns);
            start.last_ns = last_ns;
            return;
        }
        if self.starts.len() == MAX_STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back(Start { trace_id, first_ns: started_ns, last_ns, sync: None });
    }
}

impl Start {
    fn covers(&self, call: &Call) -> bool {
        call.started_ns <= self.last_ns && call.started_ns >= self.first_ns.saturating_sub(BEFORE_START_NS)
    }
}

/// Only kubelet's `syncPod` makes these calls.
fn creates(call: &Call) -> bool {
    let method = call.method.as_deref().and_then(|method| method.strip_prefix("runtime.v1.RuntimeService/"));
    matches!(method, Some("RunPodSandbox" | "CreateContainer" | "StartContainer"))
}
