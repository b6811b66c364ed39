//! Writes new spans: those that spanlet makes itself.
//!
//! ```
//! use spanlet_otlp::{SpanKind, TraceRequest, build::{NewRequest, NewSpan}};
//!
//! let mut span = NewSpan::new([1; 16], [2; 8], "request wait", SpanKind::Internal, 1_000, 2_000);
//! span.parent([3; 8]);
//! span.str("server.address", "/run/containerd/containerd.sock");
//! let mut request = NewRequest::new("spanlet", "0.1.0");
//! request.resource_str("service.name", "spanlet");
//! request.push(&span);
//!
//! let request = TraceRequest::parse(request.encode()).unwrap();
//! assert_eq!(request.span(0).name(), "request wait");
//! ```

use bytes::Bytes;

use crate::attribute::{put_attribute, put_link};
use crate::schema::tag;
use crate::view::{SpanKind, Value};
use crate::wire::{len_field_len, put_bytes, put_fixed64, put_len, put_varint_field};

/// A span to be, already encoded.
#[derive(Debug, Clone)]
pub struct NewSpan {
    fields: Vec<u8>,
}

/// `Status.code` of a new span; one without is unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Somebody made sure that it went well.
    Ok = 1,
    /// It failed.
    Error = 2,
}

/// New spans of one resource and one instrumentation scope.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Fields of the `Resource`.
    resource: Vec<u8>,
    /// Fields of the `ScopeSpans`: the scope, then the spans.
    scope_spans: Vec<u8>,
    spans: usize,
}

// === impl NewSpan ===

impl NewSpan {
    /// A root span; times are Unix nanoseconds.
    pub fn new(
        trace_id: [u8; 16],
        span_id: [u8; 8],
        name: &str,
        kind: SpanKind,
        start_unix_nano: u64,
        end_unix_nano: u64,
    ) -> Self {
        let mut fields = Vec::with_capacity(USUAL_SPAN_BYTES);
        put_bytes(&mut fields, tag::SPAN_TRACE_ID, &trace_id);
        put_bytes(&mut fields, tag::SPAN_SPAN_ID, &span_id);
        put_bytes(&mut fields, tag::SPAN_NAME, name.as_bytes());
        put_varint_field(&mut fields, tag::SPAN_KIND, kind as u64);
        put_fixed64(&mut fields, tag::SPAN_START_TIME, start_unix_nano);
        put_fixed64(&mut fields, tag::SPAN_END_TIME, end_unix_nano);
        Self { fields }
    }

    /// Makes it the child of a span of the same trace; given twice, the last one counts.
    pub fn parent(&mut self, span_id: [u8; 8]) {
        put_bytes(&mut self.fields, tag::SPAN_PARENT_SPAN_ID, &span_id);
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, key: &str, value: Value<'_>) {
        put_attribute(&mut self.fields, tag::SPAN_ATTRIBUTES, key, value);
    }

    /// Adds a string attribute.
    pub fn str(&mut self, key: &str, value: &str) {
        self.attribute(key, Value::Str(value));
    }

    /// Adds an integer attribute.
    pub fn int(&mut self, key: &str, value: i64) {
        self.attribute(key, Value::Int(value));
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.attribute(key, Value::Bool(value));
    }

    /// Adds a link to a span.
    pub fn link(&mut self, trace_id: [u8; 16], span_id: [u8; 8]) {
        put_link(&mut self.fields, trace_id, span_id);
    }

    /// Says how it ended; given twice, the last one counts.
    pub fn status(&mut self, status: Status, message: &str) {
        let mut fields = Vec::with_capacity(message.len() + 8);
        put_bytes(&mut fields, tag::STATUS_MESSAGE, message.as_bytes());
        put_varint_field(&mut fields, tag::STATUS_CODE, status as u64);
        put_bytes(&mut self.fields, tag::SPAN_STATUS, &fields);
    }

    /// Bytes that it takes in a request.
    pub fn encoded_len(&self) -> usize {
        len_field_len(tag::SCOPE_SPANS_SPANS, self.fields.len())
    }
}

// === impl NewRequest ===

impl NewRequest {
    /// No spans yet, of the instrumentation scope with this name and version.
    pub fn new(scope_name: &str, scope_version: &str) -> Self {
        let mut scope = Vec::with_capacity(scope_name.len() + scope_version.len() + 8);
        put_bytes(&mut scope, tag::SCOPE_NAME, scope_name.as_bytes());
        put_bytes(&mut scope, tag::SCOPE_VERSION, scope_version.as_bytes());
        let mut scope_spans = Vec::new();
        put_bytes(&mut scope_spans, tag::SCOPE_SPANS_SCOPE, &scope);
        Self { resource: Vec::new(), scope_spans, spans: 0 }
    }

    /// Adds an attribute to the resource.
    pub fn resource_attribute(&mut self, key: &str, value: Value<'_>) {
        put_attribute(&mut self.resource, tag::RESOURCE_ATTRIBUTES, key, value);
    }

    /// Adds a string attribute to the resource.
    pub fn resource_str(&mut self, key: &str, value: &str) {
        self.resource_attribute(key, Value::Str(value));
    }

    /// Adds a span.
    pub fn push(&mut self, span: &NewSpan) {
        put_bytes(&mut self.scope_spans, tag::SCOPE_SPANS_SPANS, &span.fields);
        self.spans += 1;
    }

    /// Spans so far.
    pub fn span_count(&self) -> usize {
        self.spans
    }

    /// Bytes of the request so far.
    pub fn encoded_len(&self) -> usize {
        len_field_len(tag::REQUEST_RESOURCE_SPANS, self.resource_spans_len())
    }

    /// The encoded `ExportTraceServiceRequest`.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        put_len(&mut out, tag::REQUEST_RESOURCE_SPANS, self.resource_spans_len());
        put_bytes(&mut out, tag::RESOURCE_SPANS_RESOURCE, &self.resource);
        put_bytes(&mut out, tag::RESOURCE_SPANS_SCOPE_SPANS, &self.scope_spans);
        Bytes::from(out)
    }

    fn resource_spans_len(&self) -> usize {
        len_field_len(tag::RESOURCE_SPANS_RESOURCE, self.resource.len())
            + len_field_len(tag::RESOURCE_SPANS_SCOPE_SPANS, self.scope_spans.len())
    }
}

/// A span of ours with ids, times and a handful of attributes fits without growing.
const USUAL_SPAN_BYTES: usize = 256;
