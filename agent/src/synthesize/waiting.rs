//! Plugin calls that wait for their pod, or for the span that they are part of.
//!
//! ```text
//!  finished ──► no pod ──told late──► pod, no parent ──a joined span tells it──► child
//!                  │                        └─traceparent of its own─────────────► child
//!                  │                        └─two starts, or too long────────────► root
//!                  └─too long─► forgotten: nothing says that it was a pod's
//! ```

use std::collections::VecDeque;

use super::plugins::Parent;
use super::pods::{Found, PodCalls};
use crate::call::Call;
use crate::pod::Owner;

/// Longest wait after a call's end. kubelet sends its spans every 5 s, and the sandbox, whose call names the parent, is
/// made when all volumes are mounted.
const WAIT_NS: u64 = 15_000_000_000;

/// Most calls that wait: volumes, claims and devices of pods that start within [`WAIT_NS`]. The oldest wait no longer.
const MAX_WAITING: usize = 256;

/// A bounded queue in the order of the calls' ends.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    calls: VecDeque<Call>,
}

/// What is to become of a call.
enum Fate {
    Span(Option<Parent>),
    Wait,
    Forget,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn push(&mut self, call: &Call) {
        self.calls.push_back(call.clone());
    }

    /// The call's owner has become known.
    pub(super) fn own(&mut self, connection: u64, stream: u32, owner: &Owner) {
        let is_meant = |call: &&mut Call| (call.connection, call.stream) == (connection, stream);
        if let Some(call) = self.calls.iter_mut().find(is_meant) {
            call.owner = Some(owner.clone());
        }
    }

    /// The calls that wait no longer, with owner and parent. `now_ns` is Unix nanoseconds, `None` if nobody looked.
    pub(super) fn take_settled(&mut self, pods: &PodCalls, now_ns: Option<u64>) -> Vec<(Call, Owner, Option<Parent>)> {
        let mut settled = Vec::new();
        let excess = self.calls.len().saturating_sub(MAX_WAITING);
        for (position, mut call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            let has_waited = now_ns.is_some_and(|now_ns| now_ns > call.ended_ns.saturating_add(WAIT_NS));
            match fate(&call, pods, position < excess || has_waited) {
                Fate::Wait => self.calls.push_back(call),
                Fate::Span(parent) => settled.extend(call.owner.take().map(|owner| (call, owner, parent))),
                Fate::Forget => {}
            }
        }
        settled
    }
}

fn fate(call: &Call, pods: &PodCalls, is_late: bool) -> Fate {
    let Some(owner) = &call.owner else {
        return if is_late { Fate::Forget } else { Fate::Wait };
    };
    if let Some(own) = call.traceparent {
        // Its client has decided; of a trace that is not sampled a span of ours would be the only one.
        let parent = Parent { trace_id: own.trace_id, span_id: own.span_id };
        return if own.is_sampled() { Fate::Span(Some(parent)) } else { Fate::Forget };
    }
    match pods.start_of(owner, call) {
        Found::Parent(parent) => Fate::Span(Some(parent)),
        Found::Ambiguous => Fate::Span(None),
        Found::NotYet if is_late => Fate::Span(None),
        Found::NotYet => Fate::Wait,
    }
}
