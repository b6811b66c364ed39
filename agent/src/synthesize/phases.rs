//! The phases of a slow call as spans below its client span.

use std::time::Duration;

use spanlet_otlp::SpanKind;
use spanlet_otlp::build::NewSpan;

use super::attributes;
use super::ids::Ids;
use crate::call::Call;

const NAMES: [&str; 4] = ["request wait", "handling", "response send", "response wait"];

/// Whether the call's phases are worth spans: it was sampled, took this long, and is no stream.
pub(super) fn is_slow(call: &Call, slow: Duration) -> bool {
    let took = Duration::from_nanos(call.ended_ns.saturating_sub(call.started_ns));
    took >= slow && !call.streaming && call.traceparent.is_some_and(|parent| parent.is_sampled())
}

/// One span for each phase that is known and not empty.
pub(super) fn spans<'a>(ids: &'a Ids, call: &'a Call) -> impl Iterator<Item = NewSpan> + 'a {
    let phases = NAMES.into_iter().zip(call.points.phases());
    phases.filter_map(|(name, phase)| {
        let (from_ns, to_ns) = phase.filter(|(from_ns, to_ns)| from_ns < to_ns)?;
        let parent = call.traceparent?;
        let (_, span_id) = ids.of_call(call, name);
        let mut span = NewSpan::new(parent.trace_id, span_id, name, SpanKind::Internal, from_ns, to_ns);
        span.parent(parent.span_id);
        if let Some(method) = &call.method {
            span.str("rpc.method", method);
        }
        span.str("server.address", &call.socket.path);
        if let Some(owner) = &call.owner {
            attributes::add_owner(&mut span, owner);
        }
        Some(span)
    })
}
