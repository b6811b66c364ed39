//! Says which pod each call, process and span belongs to, and tells the spans.
//!
//! ```text
//!  calls ──────► ┌────────────────────────────────┐ ──owner──► calls, processes
//!  processes ──► │ store: pods, ids, traces       │
//!  spans ──────► │ wire > span > runtime > api >… │ ──owner, k8s.* attributes──► spans
//!  facts ──────► └────────────────────────────────┘
//! ```
//!
//! A wrong pod is worse than none. What belongs to the node (lists, versions, garbage collection) gets no pod, a span
//! inherits from its ancestors, and from its trace only where the whole trace is one pod's (see [`store`]).

mod attributes;
mod calls;
mod evidence;
mod execs;
mod hold;
mod logs;
mod names;
mod pending;
mod plugins;
mod questions;
mod requests;
mod source;
pub mod sources;
mod spans;
mod store;
#[cfg(test)]
mod tests;

pub use self::hold::Hold;
pub use self::source::{Fact, News, OwnedFact, OwnedPodName, PodName, Question, Source};
pub use self::store::StoreCounts;

use self::execs::Execs;
use self::pending::Pending;
use self::plugins::claim_key;
use self::questions::Questions;
use self::requests::Requests;
use self::store::{SpanOwners, Store, Thing};
use crate::config;
use crate::observe::IdentityResult;
use crate::pod::Owner;

/// The owner of a call that has passed without one: its volume or claim was named later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateOwner {
    pub connection: u64,
    pub stream: u32,
    pub owner: Owner,
}

/// What the enricher has met; all only grow, but for `pods_held`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub store: StoreCounts,
    /// Spans that were given a pod.
    pub spans_owned: u64,
    /// Spans that passed before their trace was known to be a pod's.
    pub spans_early: u64,
    /// Links to the API server's spans that were not kept because too many were told.
    pub links_dropped: u64,
    /// Plugin calls and processes that waited for their pod, and processes that ran, given up because too many did.
    pub pending_dropped: u64,
    /// Pods in the store now.
    pub pods_held: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Enricher {
    config: config::Enrich,
    store: Store,
    span_owners: SpanOwners,
    requests: Requests,
    /// Whether any source tells attributes of pods.
    attributes_told: bool,
    /// What the API told of the node.
    node_attributes: Vec<(String, String)>,
    pending: Pending,
    execs: Execs,
    questions: Questions,
    late: Vec<LateOwner>,
    spans_owned: u64,
}

impl Enricher {
    pub fn new(config: config::Enrich) -> Self {
        Self {
            config,
            store: Store::default(),
            span_owners: SpanOwners::default(),
            requests: Requests::default(),
            attributes_told: false,
            node_attributes: Vec::new(),
            pending: Pending::default(),
            execs: Execs::default(),
            questions: Questions::default(),
            late: Vec::new(),
            spans_owned: 0,
        }
    }

    /// Learns what a source outside the node's traffic has told.
    pub fn news(&mut self, news: &News) {
        news.facts.iter().for_each(|fact| self.learn(&fact.as_fact(), news.source));
        self.settle_execs();
    }

    /// Learns what a source tells that is neither a call nor a span: the runtime or the API.
    pub fn learn(&mut self, fact: &Fact<'_>, source: Source) {
        match *fact {
            Fact::Pod(name) => {
                self.claim_pod(&name, source);
            }
            Fact::Sandbox { id, pod } => {
                if let Some(pod) = self.claim_pod(&pod, source) {
                    self.store.claim_sandbox(id, pod, source);
                }
            }
            Fact::Container { id, name, pod } => {
                if let Some(pod) = self.claim_pod(&pod, source) {
                    self.store.claim_container(id, name, pod, source);
                }
            }
            Fact::Volume { id, pod } => self.assign(Thing::Volume, id, &pod, source),
            Fact::Claim { uid, pod } => self.assign(Thing::Claim, uid, &pod, source),
            Fact::ClaimName { namespace, name, pod } => {
                self.assign(Thing::ClaimName, &claim_key(namespace, name), &pod, source);
            }
            Fact::Device { id, pod } => self.assign(Thing::Device, id, &pod, source),
            Fact::Attributes { pod_uid, attributes } => {
                self.attributes_told = true;
                self.store.set_attributes(pod_uid, attributes);
            }
            Fact::Cause { pod_uid, span } => self.store.set_cause(pod_uid, span),
            Fact::Node { attributes } => attributes.clone_into(&mut self.node_attributes),
            Fact::Gone { pod_uid, at_unix_nano } => {
                if let Some(pod) = self.store.by_uid(pod_uid) {
                    self.store.pod_gone(pod, at_unix_nano);
                }
            }
        }
    }

    /// Whose a sandbox or container is, by its id.
    pub fn owner_of(&self, id: &str) -> Option<Owner> {
        self.store.owner(self.store.find(id)?)
    }

    /// The owners that became known of calls that had passed without; each is told once.
    pub fn take_late_owners(&mut self) -> Vec<LateOwner> {
        std::mem::take(&mut self.late)
    }

    /// What is worth asking; each is told once.
    pub fn take_questions(&mut self) -> Vec<Question> {
        self.questions.take()
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            store: self.store.counts(),
            spans_owned: self.spans_owned,
            spans_early: self.store.traces.early(),
            links_dropped: self.requests.dropped(),
            pending_dropped: self.pending.dropped() + self.execs.dropped(),
            pods_held: self.store.pods_held(),
        }
    }
}

// === impl Counts ===

impl Counts {
    pub fn of(&self, result: IdentityResult) -> u64 {
        match result {
            IdentityResult::Owned => self.spans_owned,
            IdentityResult::Early => self.spans_early,
            IdentityResult::Conflict => self.store.conflicts,
            IdentityResult::PodEvicted => self.store.pods_evicted,
            IdentityResult::IdEvicted => self.store.ids_evicted,
            IdentityResult::TraceEvicted => self.store.traces_evicted,
            IdentityResult::PendingDropped => self.pending_dropped,
            IdentityResult::NotAsked => 0, // counted by who passes questions on
            IdentityResult::LinkDropped => self.links_dropped,
        }
    }
}
