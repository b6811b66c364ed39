//! Reads the fields of spans and resources in place.

mod attributes;
mod events;

use std::ops::Range;

pub use attributes::{AttributeKeys, Attributes, Value};
pub use events::{Event, Events, Link, Links};

use crate::index::{ResourceEntry, SpanEntry, TraceRequest};
use crate::schema::tag;
use crate::wire::Reader;

/// A span of a request.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    request: &'a TraceRequest,
    entry: &'a SpanEntry,
}

/// The resource of a `ResourceSpans`.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    request: &'a TraceRequest,
    entry: &'a ResourceEntry,
}

/// `Span.SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the OTLP specification")]
pub enum SpanKind {
    /// Also any value that OTLP does not have.
    #[default]
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

// === impl Span ===

impl<'a> Span<'a> {
    pub(crate) fn new(request: &'a TraceRequest, entry: &'a SpanEntry) -> Self {
        Self { request, entry }
    }

    /// Zero if absent or not 16 bytes long.
    pub fn trace_id(&self) -> [u8; 16] {
        self.id(self.entry.trace_id)
    }

    /// Zero if absent or not 8 bytes long.
    pub fn span_id(&self) -> [u8; 8] {
        self.id(self.entry.span_id)
    }

    /// `None` if absent, zero or not 8 bytes long.
    pub fn parent_span_id(&self) -> Option<[u8; 8]> {
        Some(self.id(self.entry.parent_span_id)).filter(|id| *id != [0; 8])
    }

    /// The span's name.
    pub fn name(&self) -> &'a str {
        text(self.request.slice(self.entry.name))
    }

    /// The side of a call that the span tells of.
    pub fn kind(&self) -> SpanKind {
        SpanKind::from_number(self.entry.kind)
    }

    /// Start, Unix nanoseconds; 0 if absent.
    pub fn start_unix_nano(&self) -> u64 {
        self.entry.start_unix_nano
    }

    /// End, Unix nanoseconds; 0 if absent.
    pub fn end_unix_nano(&self) -> u64 {
        self.entry.end_unix_nano
    }

    /// Index of its `ResourceSpans`, for [`TraceRequest::resource`].
    pub fn resource(&self) -> usize {
        self.request.scopes[self.entry.scope as usize].resource as usize
    }

    /// Name of the instrumentation scope.
    pub fn scope_name(&self) -> &'a str {
        text(self.request.slice(self.request.scopes[self.entry.scope as usize].name))
    }

    /// `Status.code`: 0 unset or absent, 1 ok, 2 error.
    pub fn status_code(&self) -> u8 {
        self.entry.status_code
    }

    /// `Status.message`. Reads through the span: no index is kept of what few spans have.
    pub fn status_message(&self) -> &'a str {
        let mut fields = self.fields();
        let mut message: &[u8] = &[];
        while let Some(status) = fields.next_tagged(tag::SPAN_STATUS) {
            let mut status = fields.nested(status.body);
            while let Some(text) = status.next_tagged(tag::STATUS_MESSAGE) {
                message = status.slice(text.body);
            }
        }
        text(message)
    }

    /// The span's attributes, in the order of the bytes.
    pub fn attributes(&self) -> Attributes<'a> {
        let range = self.entry.attributes;
        Attributes::new(self.request.reader(range.start, range.end), tag::SPAN_ATTRIBUTES)
    }

    /// The value of the first attribute with this key.
    pub fn attribute(&self, key: &str) -> Option<Value<'a>> {
        self.attributes().find_key(key)
    }

    /// The keys of the span's attributes as they came, in the order of the bytes: quicker than [`Self::attributes`] to see
    /// which there are.
    #[inline]
    pub fn attribute_keys(&self) -> AttributeKeys<'a> {
        let range = self.entry.attributes;
        AttributeKeys::new(self.request.reader(range.start, range.end))
    }

    /// The span's events, in the order of the bytes.
    pub fn events(&self) -> Events<'a> {
        Events::new(self.fields())
    }

    /// The span's links, in the order of the bytes.
    pub fn links(&self) -> Links<'a> {
        Links::new(self.fields())
    }

    fn fields(&self) -> Reader<'a> {
        self.request.reader(self.entry.place.start, self.entry.place.end)
    }

    /// Offset 0 stands for no id.
    fn id<const LEN: usize>(&self, offset: u32) -> [u8; LEN] {
        match self.request.bytes[offset as usize..].first_chunk() {
            Some(id) if offset > 0 => *id,
            _ => [0; LEN],
        }
    }
}

// === impl Resource ===

impl<'a> Resource<'a> {
    pub(crate) fn new(request: &'a TraceRequest, entry: &'a ResourceEntry) -> Self {
        Self { request, entry }
    }

    /// The resource's attributes, in the order of the bytes; of a resource given twice, those of both.
    pub fn attributes(&self) -> Attributes<'a> {
        let end = self.entry.resource.map_or(0, |last| last.end);
        let resources = self.request.reader(self.entry.first_resource, end);
        Attributes::of_each(resources, tag::RESOURCE_SPANS_RESOURCE, tag::RESOURCE_ATTRIBUTES)
    }

    /// The value of the first attribute with this key.
    pub fn attribute(&self, key: &str) -> Option<Value<'a>> {
        self.attributes().find_key(key)
    }

    /// The bytes of the first attribute with this key in the resource's last message.
    pub(crate) fn attribute_field(&self, key: &str) -> Option<Range<usize>> {
        let last = self.entry.resource?;
        Attributes::new(self.request.reader(last.start, last.end), tag::RESOURCE_ATTRIBUTES).find_field(key)
    }
}

// === impl SpanKind ===

impl SpanKind {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

/// A string as far as it is valid UTF-8: exporters that cut strings at a length do so in the midst of a character.
fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// An id of exactly `LEN` bytes, else zero.
fn id_of<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    bytes.try_into().unwrap_or([0; LEN])
}
