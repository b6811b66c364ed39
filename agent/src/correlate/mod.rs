//! Joins spans to the calls that the kernel saw, by ids alone.
//!
//! The `traceparent` of a call names its client's span, and that span is the parent of the server's:
//!
//! ```text
//!                         (trace id, span id) of the call's traceparent
//!   CLIENT span  (trace id, span id) ═══════╣
//!   SERVER span  (trace id, parent span id) ═╝
//! ```
//!
//! The join is exact or it is not made: no clocks, no names, no guesses. A call is joined to at most one client span and
//! one server span, a span to at most one call.

mod attributes;
mod calls;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use spanlet_otlp::{Span, SpanKind, Value};

use self::calls::{CallKey, CallTable, Known, Put};
use crate::batch::Batch;
use crate::call::{Call, CallEvent, Naming};

/// Bounds of what the correlator keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most calls kept for their spans. The default, 8,192, is over a minute of 100 calls a second, which is more than a
    /// node under churn makes, and some 4 MiB when full.
    pub max_calls: usize,
}

/// What became of a span that the correlator looked at: the `result` label of `spanlet_joins_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A client span was joined to its call.
    Client,
    /// A server span was joined to its call.
    Server,
    /// A span that was joined before came again (its exporter retried) and was joined again.
    Duplicate,
    /// Its key is a call's, but that call has another server span already or carried another method: not joined.
    Refused,
    /// A CRI span whose call is not known: the probes were not attached, lost it, or its client's socket is not watched.
    Missed,
    /// A CRI server span without a parent: its client sent no `traceparent`, so nothing could join it.
    Unlinked,
}

/// How many spans came to which outcome, and what the table of calls lost; all only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    joins: [u64; Outcome::ALL.len()],
    /// Calls forgotten because the table was full.
    pub calls_evicted: u64,
    /// Calls that carried the `traceparent` of another call, and were therefore not kept.
    pub calls_refused: u64,
}

/// The method of a call that the wire did not tell and a joined span did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    pub connection: u64,
    pub stream: u32,
    /// `package.Service/Method`.
    pub method: Arc<str>,
}

/// Joins spans to calls; see the module's documentation.
#[derive(Debug)]
pub struct Correlator {
    calls: CallTable,
    counts: Counts,
}

impl Correlator {
    pub fn new(limits: Limits) -> Self {
        Self { calls: CallTable::new(limits.max_calls), counts: Counts::default() }
    }

    /// Takes in what capture tells of a call. One without a `traceparent` can be joined to nothing and is not kept.
    pub fn observe(&mut self, event: &CallEvent) {
        let (call, running) = match event {
            CallEvent::Started(call) => (call, true),
            CallEvent::Finished(call) => (call, false),
        };
        let Some(traceparent) = call.traceparent else { return };
        let key = CallKey { trace_id: traceparent.trace_id, span_id: traceparent.span_id };
        if self.calls.put(key, call, running) == Put::Refused {
            self.counts.calls_refused += 1;
        }
    }

    /// Joins the batch's spans to the calls known now: fills `batch.calls`, adds the call's phases to the spans, and
    /// returns the methods that spans told of calls whose method was not known. A call that still runs is joined with
    /// what is known of it.
    pub fn correlate(&mut self, batch: &mut Batch) -> Vec<Learned> {
        let Batch { request, additions, calls, .. } = batch;
        let mut learned = Vec::new();
        for (index, span) in request.spans().enumerate() {
            let Some(side) = Side::of(&span) else { continue };
            let known = side.key(&span).and_then(|key| self.calls.find(&key));
            let outcome = match known {
                Some(known) => {
                    let outcome = join(side, &span, known);
                    if outcome != Outcome::Refused {
                        learned.extend(learn(&span, known));
                        attributes::add(additions, index, &span, &known.call);
                        calls[index] = Some(Arc::clone(&known.call));
                    }
                    outcome
                }
                None if !is_cri(&span) => continue,
                None if side == Side::Server && span.parent_span_id().is_none() => Outcome::Unlinked,
                None => Outcome::Missed,
            };
            self.counts.joins[outcome as usize] += 1;
        }
        learned
    }

    /// Calls kept for their spans now.
    pub fn calls_held(&self) -> usize {
        self.calls.len()
    }

    pub fn counts(&self) -> Counts {
        Counts { calls_evicted: self.calls.evicted(), ..self.counts }
    }
}

/// Which end of a call a span tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn of(span: &Span<'_>) -> Option<Self> {
        match span.kind() {
            SpanKind::Client => Some(Self::Client),
            SpanKind::Server => Some(Self::Server),
            _ => None,
        }
    }

    fn key(self, span: &Span<'_>) -> Option<CallKey> {
        let span_id = match self {
            Self::Client => span.span_id(),
            Self::Server => span.parent_span_id()?,
        };
        Some(CallKey { trace_id: span.trace_id(), span_id })
    }
}

/// Notes in `known` that the span is joined to it, unless it must not be.
fn join(side: Side, span: &Span<'_>, known: &mut Known) -> Outcome {
    match side {
        Side::Client if known.client_joined => Outcome::Duplicate,
        Side::Client => {
            known.client_joined = true;
            Outcome::Client
        }
        Side::Server => match known.server_span {
            Some(joined) if joined == span.span_id() => Outcome::Duplicate,
            Some(_) => Outcome::Refused,
            None if names_other_method(span, &known.call) => Outcome::Refused,
            None => {
                known.server_span = Some(span.span_id());
                Outcome::Server
            }
        },
    }
}

/// A client span may have server spans of other protocols below it; only the call's own is the call's.
fn names_other_method(span: &Span<'_>, call: &Call) -> bool {
    let name = span.name();
    let differs = call.naming == Naming::Wire && call.method.as_deref().is_some_and(|method| method != name);
    differs && method_of(name).is_some()
}

/// The method that the span tells of a call whose method the wire did not; once for each call. What was learned before may
/// be wrong (an index of the header table stands for another path now), so it is told again where it differs.
fn learn(span: &Span<'_>, known: &mut Known) -> Option<Learned> {
    if known.call.naming == Naming::Wire || known.named {
        return None;
    }
    let method = method_of(span.name())?;
    known.named = true;
    if known.call.method.as_deref() == Some(method) {
        return None;
    }
    Some(Learned { connection: known.call.connection, stream: known.call.stream, method: Arc::from(method) })
}

/// The name, if it is `package.Service/Method`, as gRPC's instrumentations name their spans.
fn method_of(name: &str) -> Option<&str> {
    let (service, method) = name.split_once('/')?;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let service_fits = service.contains('.') && service.bytes().all(|byte| is_word(byte) || byte == b'.');
    (service_fits && !method.is_empty() && method.bytes().all(is_word)).then_some(name)
}

/// Whether the span tells of a CRI call, in the old spelling of the RPC conventions or the new one.
fn is_cri(span: &Span<'_>) -> bool {
    span.name().starts_with("runtime.v1")
        && span
            .attributes()
            .any(|(key, value)| matches!(key, "rpc.system" | "rpc.system.name") && matches!(value, Value::Str("grpc")))
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { max_calls: 8192 }
    }
}

// === impl Outcome ===

impl Outcome {
    pub const ALL: [Self; 6] =
        [Self::Client, Self::Server, Self::Duplicate, Self::Refused, Self::Missed, Self::Unlinked];

    /// The value of the metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "joined_client",
            Self::Server => "joined_server",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Missed => "missed",
            Self::Unlinked => "unlinked",
        }
    }
}

// === impl Counts ===

impl Counts {
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.joins[outcome as usize]
    }
}
