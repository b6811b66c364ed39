//! Pods by uid, and the sandboxes and containers that are theirs.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Identity;
use crate::call::Traceparent;
use crate::enrich::source::{PodName, Source};
use crate::pod::{Container, Pod};

/// Names a pod in the store while it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enrich) struct PodKey {
    slot: u32,
    generation: u32,
}

/// Most pods kept: a node runs up to some 250, and those that are gone stay for a while.
pub(super) const MAX_PODS: usize = 1024;

/// Most sandboxes and containers kept of one pod; a container that restarts gets a new id each time.
pub(super) const MAX_IDS_PER_POD: usize = 12;

/// How long a pod that is gone is kept: its last spans come 5 s later, and their request may be retried or have waited.
const GONE_KEPT_NS: u64 = 300_000_000_000;

#[derive(Debug)]
struct Slot {
    generation: u32,
    pod: Option<Arc<Pod>>,
    /// Who told namespace and name.
    named_by: Source,
    /// The record that this one, made without a uid, turned out to be.
    alias: Option<PodKey>,
    gone_ns: Option<u64>,
    cause: Option<Traceparent>,
    /// Counts claims; the pod that was claimed least recently goes first.
    claimed: u64,
    /// Hashes of its sandboxes' and containers' ids, oldest first.
    ids: Vec<u64>,
}

/// One sandbox or container id.
#[derive(Debug)]
struct Id {
    /// Of a sandbox: its id and no name.
    text: Arc<Container>,
    is_sandbox: bool,
    /// The runtime has removed it; its last spans are still to come.
    is_removed: bool,
    pod: PodKey,
    source: Source,
}

#[derive(Debug, Default)]
pub(in crate::enrich) struct Pods {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_uid: HashTable<PodKey>,
    ids: HashTable<Id>,
    hasher: DefaultHashBuilder,
    claims: u64,
    /// The newest time a source told, Unix nanoseconds.
    now_ns: u64,
    conflicts: u64,
    evicted: u64,
    ids_evicted: u64,
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn conflicts(&self) -> u64 {
        self.conflicts
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn ids_evicted(&self) -> u64 {
        self.ids_evicted
    }

    pub(super) fn pod(&self, key: PodKey) -> Option<&Arc<Pod>> {
        let slot = self.slot(key)?;
        slot.alias.and_then(|alias| self.slot(alias)).unwrap_or(slot).pod.as_ref()
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<PodKey> {
        self.by_uid.find(self.hasher.hash_one(uid), |key| uid_of(&self.slots, *key) == uid).copied()
    }

    /// The pod of this name that has a uid and is not gone. Looks at every pod: for what is rare.
    pub(super) fn by_name(&self, namespace: &str, name: &str) -> Option<PodKey> {
        let is_meant = |slot: &Slot| {
            let pod = slot.pod.as_ref().filter(|_| slot.gone_ns.is_none());
            pod.is_some_and(|pod| !pod.uid.is_empty() && pod.name == name && pod.namespace == namespace)
        };
        let position = self.slots.iter().position(is_meant)?;
        Some(PodKey { slot: position as u32, generation: self.slots[position].generation })
    }

    /// The pod of this uid, made if new. Its names are those of the most trusted source; of equals the first.
    pub(super) fn claim(&mut self, name: &PodName<'_>, source: Source) -> PodKey {
        let Some(key) = self.by_uid(name.uid) else { return self.insert(name, source) };
        self.claims += 1;
        let slot = &mut self.slots[key.slot as usize];
        slot.claimed = self.claims;
        let Some(pod) = slot.pod.as_mut().filter(|_| !name.name.is_empty()) else { return key };
        if pod.name == name.name && pod.namespace == name.namespace {
            slot.named_by = slot.named_by.min(source);
            return key;
        }
        let was_named = !pod.name.is_empty();
        self.conflicts += u64::from(was_named);
        if !was_named || source < slot.named_by {
            let named = Arc::make_mut(pod);
            name.namespace.clone_into(&mut named.namespace);
            name.name.clone_into(&mut named.name);
            slot.named_by = source;
        }
        key
    }

    /// Makes a record, of a pod without a uid too.
    pub(super) fn insert(&mut self, name: &PodName<'_>, source: Source) -> PodKey {
        self.forget_gone();
        if self.len() == MAX_PODS {
            self.evict_one();
        }
        let pod = Pod {
            namespace: name.namespace.to_owned(),
            name: name.name.to_owned(),
            uid: name.uid.to_owned(),
            attributes: Vec::new(),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::empty());
            (self.slots.len() - 1) as u32 // at most MAX_PODS
        });
        self.claims += 1;
        let generation = self.slots[slot as usize].generation;
        self.slots[slot as usize] =
            Slot { generation, pod: Some(Arc::new(pod)), named_by: source, claimed: self.claims, ..Slot::empty() };
        let key = PodKey { slot, generation };
        if !name.uid.is_empty() {
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.by_uid.insert_unique(hasher.hash_one(name.uid), key, |key| hasher.hash_one(uid_of(slots, *key)));
        }
        key
    }

    /// Whether both keys name one pod. A record without a uid, of the same name as the other, becomes the other.
    pub(super) fn same_pod(&mut self, one: PodKey, other: PodKey) -> bool {
        let (Some(a), Some(b)) = (self.pod(one), self.pod(other)) else { return false };
        if Arc::ptr_eq(a, b) {
            return true;
        }
        if (&a.namespace, &a.name) != (&b.namespace, &b.name) || a.uid.is_empty() == b.uid.is_empty() {
            return false;
        }
        let (record, pod) = if a.uid.is_empty() { (one, other) } else { (other, one) };
        self.slots[record.slot as usize].alias = Some(pod);
        true
    }

    /// Whose the sandbox or container is.
    pub(super) fn find(&self, id: &str) -> Option<Identity> {
        let found = self.ids.find(self.hasher.hash_one(id), |known| known.text.id == id)?;
        self.slot(found.pod)?;
        let container = (!found.is_sandbox).then(|| Arc::clone(&found.text));
        Some(Identity { pod: found.pod, container, source: found.source })
    }

    /// Believes that the id is the pod's, unless a source as trusted said otherwise. `container` is the container's name,
    /// `None` for a sandbox.
    pub(super) fn claim_id(&mut self, id: &str, container: Option<&str>, pod: PodKey, source: Source) {
        if self.slot(pod).is_none() {
            return;
        }
        let hash = self.hasher.hash_one(id);
        let Some(position) = self.ids.find(hash, |known| known.text.id == id).map(|known| known.pod) else {
            return self.insert_id(hash, id, container, pod, source);
        };
        let stale = self.slot(position).is_none();
        let agrees = !stale && self.same_pod(position, pod);
        let Some(known) = self.ids.find_mut(hash, |known| known.text.id == id) else { return };
        if agrees {
            known.source = known.source.min(source);
        } else {
            self.conflicts += u64::from(!stale);
            if !stale && source >= known.source {
                return;
            }
            (known.pod, known.source) = (pod, source);
        }
        if let Some(name) = container.filter(|name| known.text.name.is_empty() && !name.is_empty()) {
            Arc::make_mut(&mut known.text).name = name.to_owned();
        }
    }

    /// The runtime has removed the sandbox or container. A pod without any sandbox left is gone.
    pub(super) fn removed(&mut self, id: &str, at_ns: u64) {
        let hash = self.hasher.hash_one(id);
        let Some(known) = self.ids.find_mut(hash, |known| known.text.id == id) else { return };
        known.is_removed = true;
        let pod = known.pod;
        let Some(slot) = self.slot(pod) else { return };
        if !slot.ids.iter().any(|hash| self.id_of(pod, *hash).is_some_and(|id| id.is_sandbox && !id.is_removed)) {
            self.gone(pod, at_ns);
        }
    }

    pub(super) fn gone(&mut self, key: PodKey, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
        if self.slot(key).is_some() {
            self.slots[key.slot as usize].gone_ns = Some(at_ns);
        }
    }

    pub(super) fn set_attributes(&mut self, uid: &str, attributes: &[(String, String)]) {
        let Some(key) = self.by_uid(uid) else { return };
        if let Some(pod) = &mut self.slots[key.slot as usize].pod {
            Arc::make_mut(pod).attributes = attributes.to_vec();
        }
    }

    pub(super) fn set_cause(&mut self, uid: &str, span: Traceparent) {
        if let Some(key) = self.by_uid(uid) {
            self.slots[key.slot as usize].cause = Some(span);
        }
    }

    pub(super) fn cause(&self, uid: &str) -> Option<Traceparent> {
        self.slot(self.by_uid(uid)?)?.cause
    }

    fn slot(&self, key: PodKey) -> Option<&Slot> {
        self.slots.get(key.slot as usize).filter(|slot| slot.generation == key.generation && slot.pod.is_some())
    }

    fn insert_id(&mut self, hash: u64, id: &str, container: Option<&str>, pod: PodKey, source: Source) {
        let full = self.slots[pod.slot as usize].ids.len() == MAX_IDS_PER_POD;
        let dispensable = full.then(|| self.most_dispensable_id(pod));
        let slot = &mut self.slots[pod.slot as usize];
        slot.gone_ns = None; // a static pod comes back under the same uid
        let dispensable = dispensable.map(|position| slot.ids.remove(position));
        slot.ids.push(hash);
        if let Some(dispensable) = dispensable {
            self.ids_evicted += 1;
            self.forget_id(dispensable, pod);
        }
        let hasher = &self.hasher;
        let text = Arc::new(Container { id: id.to_owned(), name: container.unwrap_or_default().to_owned() });
        let known = Id { text, is_sandbox: container.is_none(), is_removed: false, pod, source };
        self.ids.insert_unique(hash, known, |known| hasher.hash_one(known.text.id.as_str()));
    }

    /// The oldest id that is removed, else the oldest container: a container that restarts must not cost its sandbox.
    fn most_dispensable_id(&self, pod: PodKey) -> usize {
        let ids = &self.slots[pod.slot as usize].ids;
        let first = |matches: fn(&Id) -> bool| ids.iter().position(|hash| self.id_of(pod, *hash).is_none_or(matches));
        first(|id| id.is_removed).or_else(|| first(|id| !id.is_sandbox)).unwrap_or(0)
    }

    fn id_of(&self, pod: PodKey, hash: u64) -> Option<&Id> {
        self.ids.find(hash, |known| known.pod == pod)
    }

    fn forget_id(&mut self, hash: u64, pod: PodKey) {
        if let Ok(entry) = self.ids.find_entry(hash, |known| known.pod == pod) {
            entry.remove();
        }
    }

    fn forget_gone(&mut self) {
        for slot in 0..self.slots.len() {
            let gone_ns = self.slots[slot].gone_ns;
            if gone_ns.is_some_and(|gone_ns| gone_ns.saturating_add(GONE_KEPT_NS) < self.now_ns) {
                self.forget(slot);
            }
        }
    }

    /// Forgets the pod that is gone longest, else the one claimed least recently.
    fn evict_one(&mut self) {
        let oldest = (0..self.slots.len())
            .filter(|slot| self.slots[*slot].pod.is_some())
            .min_by_key(|slot| (self.slots[*slot].gone_ns.unwrap_or(u64::MAX), self.slots[*slot].claimed));
        if let Some(slot) = oldest {
            self.evicted += 1;
            self.forget(slot);
        }
    }

    fn forget(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let key = PodKey { slot: index as u32, generation: slot.generation };
        let ids = std::mem::take(&mut slot.ids);
        if let Some(pod) = &slot.pod
            && let Ok(entry) = self.by_uid.find_entry(self.hasher.hash_one(pod.uid.as_str()), |known| *known == key)
        {
            entry.remove();
        }
        self.slots[index] = Slot { generation: key.generation.wrapping_add(1), ..Slot::empty() };
        self.free.push(key.slot);
        for hash in ids {
            self.forget_id(hash, key);
        }
    }
}

impl Slot {
    fn empty() -> Self {
        Self {
            generation: 0,
            pod: None,
            named_by: Source::Trace,
            alias: None,
            gone_ns: None,
            cause: None,
            claimed: 0,
            ids: Vec::new(),
        }
    }
}

fn uid_of(slots: &[Slot], key: PodKey) -> &str {
    slots[key.slot as usize].pod.as_ref().map_or("", |pod| pod.uid.as_str())
}
