//! What an upstream has accepted and refused so far.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

use super::Keep;

/// Trace id and span id.
pub type SpanId = ([u8; 16], [u8; 8]);

/// One accepted request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    pub headers: MetadataMap,
    /// The encoded `ExportTraceServiceRequest`, decompressed.
    pub body: Bytes,
}

/// Totals and, as far as they are kept, requests.
#[derive(Debug)]
pub struct Received {
    state: Mutex<State>,
    /// Spans accepted, for whoever waits for them.
    spans: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    keep: Keep,
    requests: Vec<ReceivedRequest>,
    /// How often each span came.
    ids: HashMap<SpanId, u32>,
    own_spans: u64,
    joined_spans: u64,
    refused_requests: u64,
}

impl Received {
    pub(super) fn new(keep: Keep) -> Self {
        Self { state: Mutex::new(State { keep, ..State::default() }), spans: watch::Sender::new(0) }
    }

    /// Spans accepted, each counted as often as it came.
    pub fn span_count(&self) -> u64 {
        *self.spans.borrow()
    }

    /// Spans that came again.
    pub fn duplicate_count(&self) -> u64 {
        self.with(|state| state.ids.values().map(|&times| u64::from(times - 1)).sum())
    }

    /// Spans that spanlet made itself (`service.name=spanlet`).
    pub fn own_span_count(&self) -> u64 {
        self.with(|state| state.own_spans)
    }

    /// Spans of others that spanlet joined to a call: they carry its times.
    pub fn joined_span_count(&self) -> u64 {
        self.with(|state| state.joined_spans)
    }

    pub fn refused_count(&self) -> u64 {
        self.with(|state| state.refused_requests)
    }

    /// How often each span came.
    pub fn ids(&self) -> HashMap<SpanId, u32> {
        self.with(|state| state.ids.clone())
    }

    /// Accepted requests in their order; empty unless kept.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.with(|state| state.requests.clone())
    }

    /// Spans of the kept requests, in their order.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter().map(|request| {
            ExportTraceServiceRequest::decode(request.body).expect("only what could be decoded is accepted")
        });
        requests.flat_map(|request| request.resource_spans).flat_map(spans_of).collect()
    }

    /// Waits until `count` spans were accepted; false when `timeout` passed first.
    pub async fn wait_for_spans(&self, count: u64, timeout: Duration) -> bool {
        let mut spans = self.spans.subscribe();
        tokio::time::timeout(timeout, spans.wait_for(|&accepted| accepted >= count))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Takes note of a request, or says what is wrong with it.
    pub(super) fn accept(&self, request: ReceivedRequest) -> Result<()> {
        let decoded =
            ExportTraceServiceRequest::decode(request.body.clone()).context("no ExportTraceServiceRequest")?;
        let mut spans = 0;
        self.with(|state| {
            if let Keep::File(file) = &mut state.keep {
                let mut delimited = BytesMut::with_capacity(request.body.len() + 10); // 10: the longest varint
                prost::encode_length_delimiter(request.body.len(), &mut delimited)?;
                delimited.put(request.body.clone());
                file.write_all(&delimited).context("write the request to its file")?;
            }
            for resource in decoded.resource_spans {
                let own = is_spanlet(&resource);
                for span in spans_of(resource) {
                    *state.ids.entry(id(&span)?).or_default() += 1;
                    state.own_spans += u64::from(own);
                    state.joined_spans += u64::from(!own && is_joined(&span));
                    spans += 1;
                }
            }
            if matches!(state.keep, Keep::Requests) {
                state.requests.push(request);
            }
            anyhow::Ok(())
        })?;
        self.spans.send_modify(|accepted| *accepted += spans);
        Ok(())
    }

    pub(super) fn refuse(&self) {
        self.with(|state| state.refused_requests += 1);
    }

    fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.state.lock().expect("no thread panics while it holds the lock"))
    }
}

fn spans_of(resource: ResourceSpans) -> impl Iterator<Item = Span> {
    resource.scope_spans.into_iter().flat_map(|scope| scope.spans)
}

fn id(span: &Span) -> Result<SpanId> {
    let trace_id = span.trace_id.as_slice().try_into().context("a trace id has 16 bytes")?;
    let span_id = span.span_id.as_slice().try_into().context("a span id has 8 bytes")?;
    Ok((trace_id, span_id))
}

fn is_joined(span: &Span) -> bool {
    span.attributes.iter().any(|attribute| attribute.key.starts_with("spanlet.call."))
}

fn is_spanlet(resource: &ResourceSpans) -> bool {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    attributes.filter(|attribute| attribute.key == "service.name").any(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        matches!(value, Some(Value::StringValue(name)) if name == "spanlet")
    })
}
