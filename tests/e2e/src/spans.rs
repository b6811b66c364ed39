//! Spans with what tests ask of them, from recordings and from what arrived upstream.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use spanlet_node::upstream::{Received, SpanId};

/// A span and the service that made it.
#[derive(Debug, Clone)]
pub struct ServiceSpan {
    pub service: String,
    pub span: Span,
}

impl ServiceSpan {
    pub fn id(&self) -> SpanId {
        (self.trace_id(), self.span.span_id.as_slice().try_into().expect("a span id has 8 bytes"))
    }

    pub fn trace_id(&self) -> [u8; 16] {
        self.span.trace_id.as_slice().try_into().expect("a trace id has 16 bytes")
    }

    /// Trace id and parent, as an id.
    pub fn parent(&self) -> Option<SpanId> {
        Some((self.trace_id(), self.span.parent_span_id.as_slice().try_into().ok()?))
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match value(&self.span.attributes, key)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, key: &str) -> Option<i64> {
        match value(&self.span.attributes, key)? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.span.attributes.iter().any(|attribute| attribute.key.starts_with(prefix))
    }
}

/// The ids in a `traceparent`.
pub fn ids_of(traceparent: &str) -> SpanId {
    let parsed = spanlet::call::Traceparent::parse(traceparent.as_bytes()).expect("a traceparent");
    (parsed.trace_id, parsed.span_id)
}

/// All spans of a recording's `-otlp.binpb`.
pub fn recorded(prefix: &Path) -> Result<Vec<ServiceSpan>> {
    let path = format!("{}-otlp.binpb", prefix.display());
    let bytes = fs::read(&path).with_context(|| format!("read {path}"))?;
    let mut rest = bytes.as_slice();
    let mut spans = Vec::new();
    while !rest.is_empty() {
        spans.extend(of_request(ExportTraceServiceRequest::decode_length_delimited(&mut rest)?));
    }
    Ok(spans)
}

/// All spans that arrived upstream.
pub fn arrived(received: &Received) -> Result<Vec<ServiceSpan>> {
    let mut spans = Vec::new();
    for request in received.requests() {
        spans.extend(of_request(ExportTraceServiceRequest::decode(request.body)?));
    }
    Ok(spans)
}

fn of_request(request: ExportTraceServiceRequest) -> Vec<ServiceSpan> {
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = match value(&attributes, "service.name") {
            Some(Value::StringValue(name)) => name.clone(),
            _ => String::new(),
        };
        let scopes = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(scopes.map(|span| ServiceSpan { service: service.clone(), span }));
    }
    spans
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    let AnyValue { value } = attribute.value.as_ref()?;
    value.as_ref()
}
