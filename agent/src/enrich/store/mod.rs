//! The one bounded store of identity: pods by uid, and sandboxes, containers, volumes, claims and traces by id.
//!
//! ```text
//!  sandbox id, container id ─┐
//!  volume, claim, device ────┼──► pod (slot + generation) ──► Arc<Pod>
//!  trace id ─────────────────┘
//! ```
//!
//! Keys outlive their pod harmlessly: a slot that was used again has another generation, so a stale key finds nothing.
//! A pod takes some 260 B for each of its ids, [`pods::MAX_IDS_PER_POD`] at most, under 1 KiB for itself, and what the API
//! tells of it, 2 KiB at most. Measured: 2.2 KiB for a usual pod with its labels, 3.5 KiB for one with all ids and none. Only
//! a pod at both limits passes 4 KiB.

mod pods;
mod spans;
mod traces;

use std::sync::Arc;

use hashbrown::HashMap;

pub(super) use self::pods::PodKey;
use self::pods::Pods;
pub(super) use self::spans::SpanOwners;
pub(super) use self::traces::{Evidence as TraceEvidence, Traces};
use super::source::{PodName, Source};
use crate::call::Traceparent;
use crate::pod::{Container, Owner, Pod};

/// A pod and perhaps one of its containers, and who told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pod: PodKey,
    pub(super) container: Option<Arc<Container>>,
    pub(super) source: Source,
}

/// What claims met, and what the bounds cost; all only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// Claims that contradicted a source as trusted or more, and were not believed, or that replaced a less trusted one.
    pub conflicts: u64,
    /// Pods forgotten because the store was full.
    pub pods_evicted: u64,
    /// Sandbox and container ids, volumes and claims forgotten because their table or their pod was full.
    pub ids_evicted: u64,
    /// Traces forgotten because the table was full.
    pub traces_evicted: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Store {
    pods: Pods,
    /// In the order of [`Thing`].
    things: [Keyed; Thing::COUNT],
    pub(super) traces: Traces,
}

/// What plugins give to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    /// A CSI volume, by its id.
    Volume,
    /// A DRA claim, by its uid.
    Claim,
    /// A DRA claim, by `namespace/name`.
    ClaimName,
    /// A device plugin's device, by its id. Whose it is holds for one call and is not kept.
    Device,
}

impl Thing {
    /// Those that are kept.
    const COUNT: usize = 3;

    /// How the owner of a call on it is known.
    pub(super) const fn source(self) -> Source {
        match self {
            Self::Volume => Source::Volume,
            Self::Claim | Self::ClaimName => Source::Claim,
            Self::Device => Source::Device,
        }
    }
}

/// Most things of a kind: some for each pod of a full node. Their keys are at most [`MAX_KEY_BYTES`] long.
const MAX_KEYED: usize = 1024;
const MAX_KEY_BYTES: usize = 256;

impl Store {
    /// Believes that the pod exists and is called so, unless a more trusted source said otherwise. `None` if the store
    /// cannot tell which pod is meant.
    pub(super) fn claim_pod(&mut self, name: &PodName<'_>, source: Source) -> Option<PodKey> {
        (!name.uid.is_empty()).then(|| self.pods.claim(name, source))
    }

    /// A record for a pod whose uid is not told; it may turn out to be one that is known in the same trace or by the same id.
    pub(super) fn claim_nameless(&mut self, name: &PodName<'_>, source: Source) -> PodKey {
        self.pods.insert(name, source)
    }

    pub(super) fn claim_sandbox(&mut self, id: &str, pod: PodKey, source: Source) {
        self.pods.claim_id(id, None, pod, source);
    }

    /// `name` is empty if not told; a name told once stays.
    pub(super) fn claim_container(&mut self, id: &str, name: &str, pod: PodKey, source: Source) {
        self.pods.claim_id(id, Some(name), pod, source);
    }

    /// The thing is used by the pod, and no longer by another.
    pub(super) fn claim_thing(&mut self, thing: Thing, key: &str, pod: PodKey) {
        self.things[thing as usize].put(key, pod);
    }

    /// Whose the sandbox or container is.
    pub(super) fn find(&self, id: &str) -> Option<Identity> {
        self.pods.find(id)
    }

    /// What the thing was used for is over.
    pub(super) fn forget_thing(&mut self, thing: Thing, key: &str) {
        self.things[thing as usize].forget(key);
    }

    pub(super) fn thing(&self, thing: Thing, key: &str) -> Option<PodKey> {
        self.things[thing as usize].find(key).filter(|pod| self.pods.pod(*pod).is_some())
    }

    /// The pod of this name that is not gone, if there is one.
    pub(super) fn by_name(&self, namespace: &str, name: &str) -> Option<PodKey> {
        self.pods.by_name(namespace, name)
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<PodKey> {
        self.pods.by_uid(uid)
    }

    pub(super) fn pod(&self, key: PodKey) -> Option<&Arc<Pod>> {
        self.pods.pod(key)
    }

    pub(super) fn owner(&self, identity: Identity) -> Option<Owner> {
        let pod = Arc::clone(self.pods.pod(identity.pod)?);
        Some(Owner { pod, container: identity.container, source: identity.source.label() })
    }

    pub(super) fn set_attributes(&mut self, uid: &str, attributes: &[(String, String)]) {
        self.pods.set_attributes(uid, attributes);
    }

    pub(super) fn set_cause(&mut self, uid: &str, span: Traceparent) {
        self.pods.set_cause(uid, span);
    }

    /// The span that asked for the pod, if that was told.
    pub(super) fn cause(&self, uid: &str) -> Option<Traceparent> {
        self.pods.cause(uid)
    }

    /// The runtime has removed the sandbox or container.
    pub(super) fn removed(&mut self, id: &str, at_ns: u64) {
        self.pods.removed(id, at_ns);
    }

    pub(super) fn pod_gone(&mut self, key: PodKey, at_ns: u64) {
        self.pods.gone(key, at_ns);
    }

    pub(super) fn pods_held(&self) -> usize {
        self.pods.len()
    }

    pub(super) fn counts(&self) -> StoreCounts {
        StoreCounts {
            conflicts: self.pods.conflicts() + self.traces.conflicts(),
            pods_evicted: self.pods.evicted(),
            ids_evicted: self.pods.ids_evicted() + self.things.iter().map(|things| things.evicted).sum::<u64>(),
            traces_evicted: self.traces.evicted(),
        }
    }

    /// Notes what a span or a call tells of its trace.
    pub(super) fn note_trace(&mut self, trace_id: [u8; 16], evidence: TraceEvidence) {
        self.traces.note(trace_id, evidence, &mut self.pods);
    }

    /// A pod that something in the trace was of, which need not be everything's.
    pub(super) fn pod_in_trace(&self, trace_id: &[u8; 16]) -> Option<PodKey> {
        self.traces.any_pod(trace_id)
    }

    /// The pod that the whole trace belongs to.
    pub(super) fn trace_pod(&self, trace_id: &[u8; 16]) -> Option<PodKey> {
        self.traces.pod(trace_id).filter(|pod| self.pods.pod(*pod).is_some())
    }
}

/// A bounded map from a name to a pod, the newest claim winning: a volume is used by one pod after another.
#[derive(Debug, Default)]
struct Keyed {
    pods: HashMap<Box<str>, PodKey>,
    order: std::collections::VecDeque<Box<str>>,
    evicted: u64,
}

impl Keyed {
    fn put(&mut self, name: &str, pod: PodKey) {
        if name.is_empty() || name.len() > MAX_KEY_BYTES {
            return;
        }
        if let Some(known) = self.pods.get_mut(name) {
            *known = pod;
            return;
        }
        if self.order.len() == MAX_KEYED
            && let Some(oldest) = self.order.pop_front()
        {
            self.pods.remove(&oldest);
            self.evicted += 1;
        }
        self.pods.insert(name.into(), pod);
        self.order.push_back(name.into());
    }

    fn forget(&mut self, name: &str) {
        if self.pods.remove(name).is_some() {
            self.order.retain(|known| **known != *name);
        }
    }

    fn find(&self, name: &str) -> Option<PodKey> {
        self.pods.get(name).copied()
    }
}
