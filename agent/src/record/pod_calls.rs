//! Makes one call out of what the wire and up to two spans tell of it.

use std::collections::HashMap;

use crate::api::{EntryKind, EntrySource};
use crate::call::SocketKind;

use super::evidence::{CallSeen, SpanKey, SpanRole, SpanSeen};
use super::step::Step;

/// One call of a pod: seen on the wire, as kubelet's span, as the runtime's span, or any of them together.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodCall<'a> {
    pub(super) wire: Option<&'a CallSeen>,
    pub(super) client: Option<&'a SpanSeen>,
    pub(super) server: Option<&'a SpanSeen>,
}

/// A pod's calls in order of their start, and which of them each span id belongs to.
#[derive(Debug, Default)]
pub(super) struct PodCalls<'a> {
    pub(super) calls: Vec<PodCall<'a>>,
    by_span: HashMap<SpanKey, usize>,
}

impl<'a> PodCalls<'a> {
    /// Joins by trace id and span id only: a call's `traceparent` names kubelet's span, and is the parent of the runtime's.
    pub(super) fn join(wire: &'a [CallSeen], spans: &'a [SpanSeen]) -> Self {
        let mut joined = Self::default();
        // By time, so that the answer is the same in whatever order the evidence came.
        let mut wire: Vec<_> = wire.iter().collect();
        wire.sort_by_key(|call| (call.started_ns, call.connection, call.stream));
        for call in wire {
            joined.add(call.span(), PodCall { wire: Some(call), client: None, server: None });
        }
        let mut spans: Vec<_> = spans.iter().collect();
        spans.sort_by_key(|span| (span.started_ns, span.key));
        for span in spans.iter().copied().filter(|span| span.role == SpanRole::CriClient) {
            match joined.free_slot(Some(span.key), |call| call.client.is_none()) {
                Some(call) => call.client = Some(span),
                None => joined.add(Some(span.key), PodCall { wire: None, client: Some(span), server: None }),
            }
        }
        for span in spans.iter().copied().filter(|span| span.role == SpanRole::CriServer) {
            let client_key = span.parent_key();
            match joined.free_slot(client_key, |call| call.server.is_none()) {
                Some(call) => call.server = Some(span),
                None => joined.add(client_key, PodCall { wire: None, client: None, server: Some(span) }),
            }
        }
        joined.sort();
        joined
    }

    /// The call that the span with this key is a part of.
    pub(super) fn of_span(&self, key: SpanKey) -> Option<usize> {
        self.by_span.get(&key).copied()
    }

    fn add(&mut self, key: Option<SpanKey>, call: PodCall<'a>) {
        if let Some(key) = key {
            self.by_span.entry(key).or_insert(self.calls.len());
        }
        self.calls.push(call);
    }

    fn free_slot(&mut self, key: Option<SpanKey>, is_free: impl Fn(&PodCall<'_>) -> bool) -> Option<&mut PodCall<'a>> {
        let call = &mut self.calls[*self.by_span.get(&key?)?];
        is_free(call).then_some(call)
    }

    fn sort(&mut self) {
        self.calls
            .sort_by_key(|call| (call.started_ns(), call.wire.map(|wire| (wire.connection, wire.stream)), call.span()));
        self.by_span.clear();
        for (index, call) in self.calls.iter().enumerate() {
            let keys = [
                call.wire.and_then(CallSeen::span),
                call.client.map(|span| span.key),
                call.server.map(|span| span.key),
            ];
            for key in keys.into_iter().flatten() {
                self.by_span.entry(key).or_insert(index);
            }
        }
    }
}

impl<'a> PodCall<'a> {
    pub(super) fn method(&self) -> Option<&'a str> {
        self.wire
            .and_then(|wire| wire.method.as_deref())
            .or_else(|| self.client.or(self.server).map(|span| &*span.name))
    }

    pub(super) fn kind(&self) -> EntryKind {
        match self.wire.map(|wire| wire.kind) {
            Some(SocketKind::Csi) => EntryKind::Csi,
            Some(SocketKind::Dra) => EntryKind::Dra,
            Some(SocketKind::DevicePlugin | SocketKind::Registration | SocketKind::PodResources) => EntryKind::Device,
            Some(SocketKind::Cri) | None => EntryKind::Cri,
        }
    }

    pub(super) fn step(&self) -> Step {
        Step::of(self.wire.map_or(SocketKind::Cri, |wire| wire.kind), self.method())
    }

    pub(super) fn source(&self) -> EntrySource {
        if self.wire.is_some() { EntrySource::Wire } else { EntrySource::Otlp }
    }

    pub(super) fn started_ns(&self) -> u64 {
        self.wire.map(|wire| wire.started_ns).or_else(|| self.span_value(|span| span.started_ns)).unwrap_or(0)
    }

    /// `None` while it runs.
    pub(super) fn ended_ns(&self) -> Option<u64> {
        match self.wire {
            Some(wire) if wire.finished && wire.end_known => Some(wire.ended_ns),
            // The end was missed on the wire; the spans know it. Without them a call that is over has its last known point.
            Some(wire) => self
                .span_value(|span| span.ended_ns.max(wire.started_ns))
                .or_else(|| wire.finished.then_some(wire.ended_ns)),
            None => self.span_value(|span| span.ended_ns.max(span.started_ns)),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.ended_ns().is_none()
    }

    /// gRPC status code.
    pub(super) fn status(&self) -> Option<u8> {
        self.wire
            .and_then(|wire| wire.status)
            .or_else(|| self.client.and_then(|span| span.status))
            .or_else(|| self.server.and_then(|span| span.status))
    }

    /// Over, and known to have failed.
    pub(super) fn failed(&self) -> bool {
        !self.is_running()
            && self.status().map_or_else(
                || [self.client, self.server].into_iter().flatten().any(|span| span.error),
                |status| status != 0,
            )
    }

    /// Over, and not known to have failed.
    pub(super) fn succeeded(&self) -> bool {
        !self.is_running() && !self.failed()
    }

    /// kubelet's span of this call, whether or not it was exported.
    pub(super) fn span(&self) -> Option<SpanKey> {
        self.wire
            .and_then(CallSeen::span)
            .or_else(|| self.client.map(|span| span.key))
            .or_else(|| self.server.and_then(SpanSeen::parent_key))
    }

    pub(super) fn trace_id(&self) -> Option<[u8; 16]> {
        self.span().or_else(|| self.server.map(|span| span.key)).map(|key| key.trace_id)
    }

    pub(super) fn container_id(&self) -> Option<&'a str> {
        self.wire
            .and_then(|wire| wire.container_id.as_deref())
            .or_else(|| self.server.and_then(|span| span.container_id.as_deref()))
            .or_else(|| self.client.and_then(|span| span.container_id.as_deref()))
    }

    pub(super) fn container_name(&self) -> Option<&'a str> {
        self.wire
            .and_then(|wire| wire.container_name.as_deref())
            .or_else(|| self.server.and_then(|span| span.container_name.as_deref()))
            .or_else(|| self.client.and_then(|span| span.container_name.as_deref()))
    }

    pub(super) fn image(&self) -> Option<&'a str> {
        self.wire
            .and_then(|wire| wire.image.as_deref())
            .or_else(|| self.server.and_then(|span| span.image.as_deref()))
            .or_else(|| self.client.and_then(|span| span.image.as_deref()))
    }

    fn span_value(&self, value: impl Fn(&SpanSeen) -> u64) -> Option<u64> {
        self.client.or(self.server).map(value)
    }
}
