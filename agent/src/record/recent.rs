//! The node's recent calls: a ring under a limit of bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::api::{CallEntry, MethodGuess, PodName};
use crate::pod::Pod;

use super::evidence::CallSeen;
use super::step::{Step, verb};

/// An entry of the index: key, value and the slot's share of the table, rounded up.
const INDEX_ENTRY_BYTES: usize = 48;

#[derive(Debug)]
pub(super) struct Recent {
    calls: VecDeque<RecentCall>,
    /// Number of the first call in `calls`, counted from the agent's start.
    first: u64,
    by_stream: HashMap<(u64, u32), u64>,
    heap_bytes: usize,
    limit_bytes: usize,
    /// Calls that made room for newer ones.
    pub(super) evicted: u64,
}

#[derive(Debug)]
pub(super) struct RecentCall {
    pub(super) seen: CallSeen,
    pub(super) pod: Option<Arc<Pod>>,
}

impl Recent {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { calls: VecDeque::new(), first: 0, by_stream: HashMap::new(), heap_bytes: 0, limit_bytes, evicted: 0 }
    }

    /// Adds a call or makes it better known; returns its pod as far as known by now.
    pub(super) fn add(&mut self, seen: CallSeen, pod: Option<&Arc<Pod>>) -> Option<Arc<Pod>> {
        let key = (seen.connection, seen.stream);
        if let Some(known) = self.find(key)
            && known.seen.is_same_call(&seen)
        {
            let before = known.seen.heap_bytes();
            known.seen.update(seen);
            if let Some(pod) = pod {
                known.pod = Some(Arc::clone(pod));
            }
            let after = known.seen.heap_bytes();
            let pod = known.pod.clone();
            self.heap_bytes = self.heap_bytes - before + after;
            return pod;
        }
        self.make_room(seen.heap_bytes());
        self.heap_bytes += seen.heap_bytes();
        self.by_stream.insert(key, self.first + self.calls.len() as u64);
        self.calls.push_back(RecentCall { seen, pod: pod.cloned() });
        pod.cloned()
    }

    /// Tells whose a call is that was not known when it was seen, and returns the call if that is news.
    pub(super) fn set_pod(&mut self, connection: u64, stream: u32, pod: &Arc<Pod>) -> Option<&CallSeen> {
        let call = self.find((connection, stream)).filter(|call| call.pod.is_none())?;
        call.pod = Some(Arc::clone(pod));
        Some(&call.seen)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &RecentCall> {
        self.calls.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// The index grows with the ring. It is charged by that: what it says of its own capacity depends on where its deleted
    /// entries lay, which differs from run to run.
    pub(super) fn bytes(&self) -> usize {
        self.calls.capacity() * (size_of::<RecentCall>() + INDEX_ENTRY_BYTES) + self.heap_bytes
    }

    fn find(&mut self, key: (u64, u32)) -> Option<&mut RecentCall> {
        let index = usize::try_from(self.by_stream.get(&key)?.checked_sub(self.first)?).ok()?;
        self.calls.get_mut(index)
    }

    /// The ring and its index double when they grow; where that would pass the limit the oldest calls go instead.
    fn make_room(&mut self, heap_bytes: usize) {
        let is_full = self.calls.len() == self.calls.capacity();
        let growth = if is_full { self.calls.len().max(4) * (size_of::<RecentCall>() + INDEX_ENTRY_BYTES) } else { 0 };
        if self.bytes() + growth + heap_bytes <= self.limit_bytes {
            return;
        }
        if is_full {
            self.pop();
        }
        while self.bytes() + heap_bytes > self.limit_bytes && self.pop() {}
    }

    fn pop(&mut self) -> bool {
        let Some(oldest) = self.calls.pop_front() else { return false };
        self.heap_bytes -= oldest.seen.heap_bytes();
        let key = (oldest.seen.connection, oldest.seen.stream);
        if self.by_stream.get(&key) == Some(&self.first) {
            self.by_stream.remove(&key);
        }
        self.first += 1;
        self.evicted += 1;
        true
    }
}

impl RecentCall {
    pub(super) fn is_pull(&self) -> bool {
        Step::of(self.seen.kind, self.seen.method.as_deref()) == Step::PullImage
    }

    /// `method` is a whole name or its last part.
    pub(super) fn is_method(&self, method: &str) -> bool {
        self.seen.method.as_deref().is_some_and(|mine| mine == method || verb(mine) == method)
    }

    /// Over since then, or running.
    pub(super) fn is_since(&self, since_ns: u64) -> bool {
        !self.seen.finished || self.seen.ended_ns >= since_ns
    }

    pub(super) fn to_entry(&self) -> CallEntry {
        let seen = &self.seen;
        let text = |value: &Option<Box<str>>| value.as_deref().map(str::to_owned);
        CallEntry {
            connection: seen.connection,
            stream: seen.stream,
            method: seen.method.as_deref().map(str::to_owned),
            naming: seen.naming.label().to_owned(),
            traceparent: seen.traceparent.map(|traceparent| traceparent.to_string()),
            status: seen.status,
            pod: self.pod.as_ref().map(|pod| PodName {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            }),
            sandbox_id: text(&seen.sandbox_id),
            container_id: text(&seen.container_id),
            request_wait_ns: seen.points.request_wait_ns(),
            handling_ns: seen.points.handling_ns(),
            response_send_ns: seen.points.response_send_ns(),
            response_wait_ns: seen.points.response_wait_ns(),
            client_pid: seen.client_pid,
            server_pid: seen.server_pid,
            guess: guess(seen),
            over: seen.finished,
            lost_track: seen.lost_track,
        }
    }
}

fn guess(seen: &CallSeen) -> Option<MethodGuess> {
    let guess = seen.guess.filter(|_| seen.method.is_none())?;
    let mut evidence = vec![guess.body.label().to_owned()];
    evidence.extend(seen.timeout_ns.map(|ns| format!("a deadline of {:?}", Duration::from_nanos(ns))));
    evidence.extend(seen.streaming.then(|| "more than one message".to_owned()));
    Some(MethodGuess { methods: guess.methods.iter().map(|&method| method.to_owned()).collect(), evidence })
}
