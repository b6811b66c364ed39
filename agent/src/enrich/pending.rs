//! Finished plugin calls that wait to hear which pod their volume, claim or device is for, and what is known to be a pod's
//! of which only the name is known.

use std::collections::VecDeque;

use super::store::Thing;
use crate::call::Call;

/// Bounded queues; the oldest go first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: VecDeque<Waiting>,
    named: VecDeque<Named>,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    thing: Thing,
    key: Box<str>,
    connection: u64,
    stream: u32,
}

/// A thing whose pod was told by name, before anything told that pod's uid.
#[derive(Debug)]
struct Named {
    namespace: Box<str>,
    name: Box<str>,
    thing: Thing,
    key: Box<str>,
}

/// Most calls that wait: a publish follows its staging at once, so these are volumes being staged now.
const MAX_PENDING: usize = 256;

/// Most things of pods that are known by name only: devices of pods that are being admitted now.
const MAX_NAMED: usize = 256;

impl Pending {
    pub(super) fn push(&mut self, thing: Thing, key: &str, call: &Call) {
        if self.calls.len() == MAX_PENDING {
            self.calls.pop_front();
            self.dropped += 1;
        }
        self.calls.push_back(Waiting { thing, key: key.into(), connection: call.connection, stream: call.stream });
    }

    /// Connection and stream of the calls that wait for this thing; they wait for nothing any longer.
    pub(super) fn take(&mut self, thing: Thing, key: &str) -> Vec<(u64, u32)> {
        let matching = self.calls.iter().filter(|waiting| waiting.thing == thing && *waiting.key == *key);
        let taken: Vec<(u64, u32)> = matching.map(|waiting| (waiting.connection, waiting.stream)).collect();
        if !taken.is_empty() {
            self.calls.retain(|waiting| !taken.contains(&(waiting.connection, waiting.stream)));
        }
        taken
    }

    /// The thing is the pod's of this name, whichever that will turn out to be.
    pub(super) fn name(&mut self, thing: Thing, key: &str, namespace: &str, name: &str) {
        if self.named.len() == MAX_NAMED {
            self.named.pop_front();
            self.dropped += 1;
        }
        self.named.push_back(Named { namespace: namespace.into(), name: name.into(), thing, key: key.into() });
    }

    /// The things of the pod of this name, which is known now.
    pub(super) fn take_named(&mut self, namespace: &str, name: &str) -> Vec<(Thing, Box<str>)> {
        if self.named.is_empty() {
            return Vec::new();
        }
        let is_its = |named: &Named| *named.namespace == *namespace && *named.name == *name;
        let (taken, kept): (VecDeque<Named>, VecDeque<Named>) =
            std::mem::take(&mut self.named).into_iter().partition(is_its);
        self.named = kept;
        taken.into_iter().map(|named| (named.thing, named.key)).collect()
    }

    /// What was dropped because too much waited.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
