//! A call of a CSI, DRA or device plugin as a span: kubelet makes none.

use spanlet_otlp::SpanKind;
use spanlet_otlp::build::NewSpan;

use super::attributes;
use super::ids::Ids;
use crate::call::{Call, Subject};
use crate::pod::Owner;

/// What a span of ours hangs below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

/// kubelet asks for each volume's statistics once a minute: that is no part of a pod's start or end.
const POLL: &str = "csi.v1.Node/NodeGetVolumeStats";

/// Whether the call is made for a pod, be it known yet or not. Of one whose end was lost no span can tell how long it took.
pub(super) fn is_of_a_pod(call: &Call) -> bool {
    if !call.is_end_known() {
        return false;
    }
    let named = call.method.as_deref().is_some_and(|method| method != POLL);
    named && (call.owner.is_some() || call.subject != Subject::Unknown)
}

pub(super) fn span(ids: &Ids, call: &Call, owner: &Owner, parent: Option<Parent>) -> NewSpan {
    let (trace_id, span_id) = ids.of_call(call, "call");
    let trace_id = parent.map_or(trace_id, |parent| parent.trace_id);
    let name = call.method.as_deref().unwrap_or_default();
    let mut span = NewSpan::new(trace_id, span_id, name, SpanKind::Client, call.started_ns, call.ended_ns);
    if let Some(parent) = parent {
        span.parent(parent.span_id);
    }
    attributes::add_call(&mut span, call);
    attributes::add_owner(&mut span, owner);
    span.str("spanlet.identity.source", owner.source);
    span
}
