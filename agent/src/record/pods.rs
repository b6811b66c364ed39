//! What is known of each pod, under a limit of bytes: the pod that was quiet the longest goes first.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::Pod;

use super::pod_record::{Piece, PodRecord};

/// Names a [`PodRecord`] for as long as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PodId(u64);

#[derive(Debug, Default)]
pub(super) struct Pods {
    records: HashMap<PodId, PodRecord>,
    by_name: HashMap<(String, String), Vec<PodId>>,
    next_id: u64,
    bytes: usize,
    /// Pieces that were dropped because their pod had too many.
    pub(super) dropped: u64,
    /// Pods that were dropped for others.
    pub(super) evicted: u64,
}

impl Pods {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PodRecord> {
        self.records.values()
    }

    pub(super) fn named(&self, namespace: &str, name: &str) -> impl Iterator<Item = &PodRecord> {
        let ids = self.by_name.get(&(namespace.to_owned(), name.to_owned()));
        ids.into_iter().flatten().filter_map(|id| self.records.get(id))
    }

    pub(super) fn contains(&self, id: PodId) -> bool {
        self.records.contains_key(&id)
    }

    /// The record of `pod`, made if there is none. A pod whose uid is not known is the one of that name.
    pub(super) fn id_of(&mut self, pod: &Arc<Pod>) -> PodId {
        let name = (pod.namespace.clone(), pod.name.clone());
        let ids = self.by_name.entry(name).or_default();
        let same = |record: &PodRecord| record.pod.uid == pod.uid;
        let unknown = |record: &PodRecord| record.pod.uid.is_empty() || pod.uid.is_empty();
        let records = &self.records;
        let known =
            ids.iter().find(|id| same(&records[id])).or_else(|| ids.iter().rev().find(|id| unknown(&records[id])));
        if let Some(&id) = known {
            let record = self.records.get_mut(&id).expect("by_name lists kept records only");
            if record.pod.uid.is_empty() && !pod.uid.is_empty() {
                record.pod = Arc::clone(pod);
            }
            return id;
        }
        let id = PodId(self.next_id);
        self.next_id += 1;
        ids.push(id);
        let record = PodRecord::new(Arc::clone(pod));
        self.bytes += record.charged_bytes;
        self.records.insert(id, record);
        id
    }

    /// Adds `piece` to a kept pod, or makes it better known.
    pub(super) fn add(&mut self, id: PodId, piece: Piece) {
        let Some(record) = self.records.get_mut(&id) else { return };
        self.dropped += record.add(piece);
        self.bytes -= record.charged_bytes;
        self.bytes += record.charge();
    }

    /// Drops pods until the rest takes at most `limit_bytes`, the longest quiet first.
    pub(super) fn shrink(&mut self, limit_bytes: usize) {
        while self.bytes > limit_bytes {
            let Some(oldest) =
                self.records.iter().min_by_key(|(id, record)| (record.newest_ns, **id)).map(|(id, _)| *id)
            else {
                return;
            };
            self.remove(oldest);
            self.evicted += 1;
        }
    }

    fn remove(&mut self, id: PodId) {
        let Some(record) = self.records.remove(&id) else { return };
        self.bytes -= record.charged_bytes;
        let name = (record.pod.namespace.clone(), record.pod.name.clone());
        if let Some(ids) = self.by_name.get_mut(&name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }
}
