//! Makes the spans that nobody else makes: of plugin calls, of the phases of slow calls, of the runtime's processes.
//!
//! ```text
//!  calls, processes, late owners ──► a span of ours ──parent known──────────────► request of scope `spanlet`
//!  joined spans ──► parents             └─parent may come: wait a few seconds ─────┘
//! ```
//!
//! The ids of a span are a hash of what it describes, so two agents that overlap during an update make the same span.
//! A span of ours is a child only where its parent is sure: a `traceparent` on the wire, the one call that was under way,
//! the one start of the pod that was under way. Otherwise it is the root of a trace of its own.

mod attributes;
mod execs;
mod ids;
mod phases;
mod plugins;
mod pods;
#[cfg(test)]
mod tests;
mod waiting;

use bytes::Bytes;
use spanlet_otlp::build::{NewRequest, NewSpan};

use self::ids::Ids;
pub use self::ids::boot_id;
use self::pods::PodCalls;
use self::waiting::Waiting;
use crate::batch::Batch;
use crate::call::{Call, CallEvent, SocketKind};
use crate::config::{self, Config};
use crate::exec::Exec;
use crate::observe::SpanKind;
use crate::pod::Owner;

/// Spans of ours, encoded.
#[derive(Debug)]
pub struct Made {
    /// An `ExportTraceServiceRequest`.
    pub request: Bytes,
    /// How many of each kind; none is 0.
    pub counts: Vec<(SpanKind, u64)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Synthesizer {
    config: config::Correlate,
    ids: Ids,
    /// Without spans; cloned for each request.
    empty: NewRequest,
    pods: PodCalls,
    waiting: Waiting,
    made: Vec<(SpanKind, NewSpan)>,
}

impl Synthesizer {
    /// `boot_id` tells this run of the node's kernel from others.
    pub fn new(config: &Config, boot_id: &str) -> Self {
        Self {
            config: config.correlate.clone(),
            ids: Ids::new(boot_id),
            empty: attributes::empty_request(&config.enrich),
            pods: PodCalls::default(),
            waiting: Waiting::default(),
            made: Vec::new(),
        }
    }

    /// Takes in a call, after `enrich` has set its owner.
    pub fn call(&mut self, event: &CallEvent) {
        match event {
            CallEvent::Started(call) => self.pods.call(call, false),
            CallEvent::Finished(call) => {
                self.pods.call(call, true);
                self.finished(call);
            }
        }
        self.settle(None);
    }

    /// Takes in whose a call is that came without an owner.
    pub fn late_owner(&mut self, connection: u64, stream: u32, owner: &Owner) {
        self.waiting.own(connection, stream, owner);
        self.settle(None);
    }

    /// Takes in a process; only one that is over becomes a span.
    pub fn exec(&mut self, exec: &Exec) {
        if !self.config.exec_spans {
            return;
        }
        let parent = exec.owner.as_ref().and_then(|owner| self.pods.under_way(owner, exec.started_ns));
        if let Some(span) = parent.and_then(|parent| execs::span(&self.ids, exec, parent)) {
            self.made.push((SpanKind::Exec, span));
        }
    }

    /// Learns the parents of calls from the spans that were joined to them.
    pub fn batch(&mut self, batch: &Batch) {
        for (index, call) in batch.calls.iter().enumerate() {
            let (Some(call), Some(owner)) = (call, &batch.owners[index]) else { continue };
            self.pods.joined(&owner.pod, call, &batch.request.span(index));
        }
        self.settle(None);
    }

    /// Whether [`Self::tick`] has anything to do.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lets go of what has waited long enough at this time, Unix nanoseconds.
    pub fn tick(&mut self, now_ns: u64) {
        self.settle(Some(now_ns));
    }

    /// The spans made since the last time, if any.
    pub fn take(&mut self) -> Option<Made> {
        if self.made.is_empty() {
            return None;
        }
        let mut request = self.empty.clone();
        let mut counts: Vec<(SpanKind, u64)> = Vec::new();
        for (kind, span) in self.made.drain(..) {
            request.push(&span);
            match counts.iter_mut().find(|(counted, _)| *counted == kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind, 1)),
            }
        }
        Some(Made { request: request.encode(), counts })
    }

    fn finished(&mut self, call: &Call) {
        match call.socket.kind {
            SocketKind::Cri => {
                if self.config.phase_spans && phases::is_slow(call, self.config.slow_call) {
                    let spans = phases::spans(&self.ids, call);
                    self.made.extend(spans.map(|span| (SpanKind::Phase, span)));
                }
            }
            SocketKind::Csi | SocketKind::Dra | SocketKind::DevicePlugin => {
                if self.config.plugin_spans && plugins::is_of_a_pod(call) {
                    self.waiting.push(call);
                }
            }
            SocketKind::Registration | SocketKind::PodResources => {}
        }
    }

    /// Makes the spans of plugin calls whose pod and parent are known, or have been waited for until `now_ns`.
    fn settle(&mut self, now_ns: Option<u64>) {
        if self.waiting.is_empty() {
            return;
        }
        for (call, owner, parent) in self.waiting.take_settled(&self.pods, now_ns) {
            let owner = self.pods.completed(owner);
            self.made.push((SpanKind::Plugin, plugins::span(&self.ids, &call, &owner, parent)));
        }
    }
}
