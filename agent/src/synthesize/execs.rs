//! A process of the runtime as a span below the call that caused it.

use spanlet_otlp::SpanKind;
use spanlet_otlp::build::{NewSpan, Status};

use super::attributes;
use super::ids::Ids;
use super::pods::SampledCall;
use crate::exec::Exec;

/// How much longer than its call a process may live and still be a part of it: one that serves the container, as a shim
/// or conmon does, lives as long as that.
const OUTLIVES_NS: u64 = 1_000_000_000;

/// `None` for a process that runs on, or that outlives its call.
pub(super) fn span(ids: &Ids, exec: &Exec, parent: &SampledCall) -> Option<NewSpan> {
    let ended_ns = exec.ended_ns?;
    if parent.ended_ns.is_some_and(|call_ended_ns| ended_ns > call_ended_ns.saturating_add(OUTLIVES_NS)) {
        return None;
    }
    let (_, span_id) = ids.of_exec(exec);
    let mut span =
        NewSpan::new(parent.traceparent.trace_id, span_id, &exec.name(), SpanKind::Internal, exec.started_ns, ended_ns);
    span.parent(parent.traceparent.span_id);
    span.int("process.pid", i64::from(exec.pid));
    if let Some(program) = exec.argv.first() {
        span.str("process.executable.path", program);
    }
    if let Some(code) = exec.exit_status.map(exit_code) {
        span.int("process.exit.code", i64::from(code));
        if code != 0 {
            span.status(Status::Error, "");
        }
    }
    if let Some(owner) = &exec.owner {
        attributes::add_owner(&mut span, owner);
    }
    Some(span)
}

/// The exit code in what `wait(2)` tells; as a shell has it, 128 and the signal's number for a process that was killed.
fn exit_code(status: i32) -> i32 {
    const SIGNAL_BITS: i32 = 0x7f;
    match status & SIGNAL_BITS {
        0 => status >> 8 & 0xff,
        signal => 128 + signal,
    }
}
