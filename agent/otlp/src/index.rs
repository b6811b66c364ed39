//! Finds the spans of a request in one pass and notes where their fields lie.
//!
//! Invariants of the index: entries stand in the order of the bytes; the scopes of a resource and the spans of a scope are
//! contiguous; every offset lies inside the request, whose bytes never change.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Fault, ParseError};
use crate::limits::{MAX_ENTRIES, MAX_REQUEST_BYTES};
use crate::schema::{self, tag};
use crate::view::{Resource, Span};
use crate::wire::{Body, Field, Reader};

/// A checked trace request (`ExportTraceServiceRequest`) and the places of its spans.
#[derive(Clone)]
pub struct TraceRequest {
    pub(crate) bytes: Bytes,
    pub(crate) resources: Vec<ResourceEntry>,
    pub(crate) scopes: Vec<ScopeEntry>,
    pub(crate) spans: Vec<SpanEntry>,
}

/// A length-prefixed field: its tag at `field`, its content from `start` to `end`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) field: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// A `ResourceSpans`.
#[derive(Debug, Clone)]
pub(crate) struct ResourceEntry {
    pub(crate) place: Place,
    /// Tag of the first `Resource`; 0 if there is none.
    pub(crate) first_resource: u32,
    /// The last `Resource`: usually the first, too.
    pub(crate) resource: Option<Place>,
    first_scope: u32,
    end_scope: u32,
}

/// A `ScopeSpans`.
#[derive(Debug, Clone)]
pub(crate) struct ScopeEntry {
    pub(crate) place: Place,
    /// Index of its `ResourceSpans`.
    pub(crate) resource: u32,
    pub(crate) name: Text,
    first_span: u32,
    end_span: u32,
}

/// A `Span`. One cache line: there may be many.
#[derive(Debug, Clone)]
pub(crate) struct SpanEntry {
    pub(crate) start_unix_nano: u64,
    pub(crate) end_unix_nano: u64,
    pub(crate) place: Place,
    /// Index of its `ScopeSpans`.
    pub(crate) scope: u32,
    /// Offset of the 16 bytes; 0 if there are not exactly so many.
    pub(crate) trace_id: u32,
    /// Offset of the 8 bytes; 0 if there are not exactly so many.
    pub(crate) span_id: u32,
    /// Offset of the 8 bytes; 0 if there are not exactly so many.
    pub(crate) parent_span_id: u32,
    pub(crate) name: Text,
    /// From the first attribute's tag to the last one's end; other fields may lie between.
    pub(crate) attributes: Text,
    pub(crate) kind: u8,
    pub(crate) status_code: u8,
}

/// A range of the request's bytes; empty if absent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Text {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

// === impl TraceRequest ===

impl TraceRequest {
    /// Checks the request and notes where its spans are; copies nothing.
    ///
    /// Spans whose ids have a wrong length are kept; such an id reads as zero.
    ///
    /// # Errors
    ///
    /// When the bytes are no `ExportTraceServiceRequest` that prost or a receiver upstream would accept, down to the values
    /// of attributes; and when a limit of this crate is passed. Strings that are not UTF-8 are no error.
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(ParseError { message: schema::REQUEST.name, offset: 0, fault: Fault::TooLong });
        }
        let mut indexer = Indexer {
            resources: Vec::new(),
            scopes: Vec::new(),
            spans: Vec::with_capacity((bytes.len() / USUAL_SPAN_BYTES).min(MAX_ENTRIES)),
        };
        indexer.request(Reader::new(&bytes, Body { start: 0, end: bytes.len() }))?;
        let Indexer { resources, scopes, spans } = indexer;
        Ok(Self { bytes, resources, scopes, spans })
    }

    /// Spans in the request.
    pub fn span_count(&self) -> usize {
        self.spans.len()
    }

    /// The span at `index`, counted through the whole request.
    ///
    /// # Panics
    ///
    /// If there is no such span, as slices do.
    pub fn span(&self, index: usize) -> Span<'_> {
        Span::new(self, &self.spans[index])
    }

    /// All spans, in the order of the bytes.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = Span<'_>> + DoubleEndedIterator {
        self.spans.iter().map(|entry| Span::new(self, entry))
    }

    /// `ResourceSpans` in the request, those without spans included.
    pub fn resource_count(&self) -> usize {
        self.resources.len()
    }

    /// The resource of the `ResourceSpans` at `index`.
    ///
    /// # Panics
    ///
    /// If there is no such `ResourceSpans`, as slices do.
    pub fn resource(&self, index: usize) -> Resource<'_> {
        Resource::new(self, &self.resources[index])
    }

    /// Bytes of the request as it came.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that the request and its index hold.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len()
            + self.spans.capacity() * size_of::<SpanEntry>()
            + self.scopes.capacity() * size_of::<ScopeEntry>()
            + self.resources.capacity() * size_of::<ResourceEntry>()
    }

    pub(crate) fn reader(&self, start: u32, end: u32) -> Reader<'_> {
        Reader::new(&self.bytes, Body { start: start as usize, end: end as usize })
    }

    /// Offset of a field's length prefix: behind its tag, the last byte of which is the first below 0x80.
    pub(crate) fn length_offset(&self, place: Place) -> usize {
        let field = place.field as usize;
        let tag_end = self.bytes[field..].iter().position(|byte| *byte < 0x80);
        field + tag_end.expect("the tag was read when parsing") + 1
    }

    pub(crate) fn slice(&self, text: Text) -> &[u8] {
        &self.bytes[text.start as usize..text.end as usize]
    }
}

impl fmt::Debug for TraceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceRequest")
            .field("bytes", &self.bytes.len())
            .field("resources", &self.resources.len())
            .field("scopes", &self.scopes.len())
            .field("spans", &self.spans.len())
            .finish()
    }
}

// === impl entries ===

impl ResourceEntry {
    /// Indices of its `ScopeSpans`.
    pub(crate) fn scopes(&self) -> Range<usize> {
        self.first_scope as usize..self.end_scope as usize
    }
}

impl ScopeEntry {
    /// Indices of its spans.
    pub(crate) fn spans(&self) -> Range<usize> {
        self.first_span as usize..self.end_span as usize
    }
}

impl Place {
    fn new(field: &Field) -> Self {
        Self { field: offset(field.start), start: offset(field.body.start), end: offset(field.body.end) }
    }

    /// Bytes of the content.
    pub(crate) const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// The content's range in the request.
    pub(crate) const fn body(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The range of tag, length prefix and content.
    pub(crate) const fn field(self) -> Range<usize> {
        self.field as usize..self.end as usize
    }
}

impl Text {
    fn new(body: Body) -> Self {
        Self { start: offset(body.start), end: offset(body.end) }
    }
}

// === impl Indexer ===

struct Indexer {
    resources: Vec<ResourceEntry>,
    scopes: Vec<ScopeEntry>,
    spans: Vec<SpanEntry>,
}

impl Indexer {
    fn request(&mut self, mut reader: Reader<'_>) -> Result<(), ParseError> {
        while let Some(field) = schema::REQUEST.next(&mut reader)? {
            match field.tag {
                tag::REQUEST_RESOURCE_SPANS => {
                    self.resource_spans(reader.nested(field.body), Place::new(&field))?;
                }
                _ => schema::REQUEST.check_field(&reader, &field, REQUEST_DEPTH)?,
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, mut reader: Reader<'_>, place: Place) -> Result<(), ParseError> {
        room(&self.resources, &schema::RESOURCE_SPANS, place)?;
        let first_scope = index(&self.scopes);
        let mut entry = ResourceEntry { place, first_resource: 0, resource: None, first_scope, end_scope: first_scope };
        while let Some(field) = schema::RESOURCE_SPANS.next(&mut reader)? {
            match field.tag {
                tag::RESOURCE_SPANS_SCOPE_SPANS => {
                    self.scope_spans(reader.nested(field.body), Place::new(&field))?;
                }
                tag::RESOURCE_SPANS_RESOURCE => {
                    schema::RESOURCE.check(reader.nested(field.body), RESOURCE_SPANS_DEPTH + 1)?;
                    if entry.resource.is_none() {
                        entry.first_resource = offset(field.start);
                    }
                    entry.resource = Some(Place::new(&field));
                }
                _ => schema::RESOURCE_SPANS.check_field(&reader, &field, RESOURCE_SPANS_DEPTH)?,
            }
        }
        entry.end_scope = index(&self.scopes);
        self.resources.push(entry);
        Ok(())
    }

    fn scope_spans(&mut self, mut reader: Reader<'_>, place: Place) -> Result<(), ParseError> {
        room(&self.scopes, &schema::SCOPE_SPANS, place)?;
        let first_span = index(&self.spans);
        let resource = index(&self.resources); // the one that is being read
        let mut entry = ScopeEntry { place, resource, name: Text::default(), first_span, end_span: first_span };
        while let Some(field) = schema::SCOPE_SPANS.next(&mut reader)? {
            match field.tag {
                tag::SCOPE_SPANS_SPANS => {
                    self.span(reader.nested(field.body), Place::new(&field))?;
                }
                tag::SCOPE_SPANS_SCOPE => {
                    let mut scope = reader.nested(field.body);
                    schema::SCOPE.check(scope, SCOPE_SPANS_DEPTH + 1)?;
                    while let Some(name) = scope.next_tagged(tag::SCOPE_NAME) {
                        entry.name = Text::new(name.body);
                    }
                }
                _ => schema::SCOPE_SPANS.check_field(&reader, &field, SCOPE_SPANS_DEPTH)?,
            }
        }
        entry.end_span = index(&self.spans);
        self.scopes.push(entry);
        Ok(())
    }

    fn span(&mut self, mut reader: Reader<'_>, place: Place) -> Result<(), ParseError> {
        room(&self.spans, &schema::SPAN, place)?;
        let mut entry = SpanEntry::new(place, index(&self.scopes)); // the scope that is being read
        while let Some(field) = schema::SPAN.next(&mut reader)? {
            match field.tag {
                tag::SPAN_TRACE_ID => entry.trace_id = id_offset::<16>(field.body),
                tag::SPAN_SPAN_ID => entry.span_id = id_offset::<8>(field.body),
                tag::SPAN_PARENT_SPAN_ID => entry.parent_span_id = id_offset::<8>(field.body),
                tag::SPAN_NAME => entry.name = Text::new(field.body),
                tag::SPAN_KIND => entry.kind = enum_value(field.value),
                tag::SPAN_START_TIME => entry.start_unix_nano = field.value,
                tag::SPAN_END_TIME => entry.end_unix_nano = field.value,
                tag::SPAN_ATTRIBUTES => {
                    schema::check_attribute(&reader, &field, SPAN_DEPTH)?;
                    if entry.attributes.end == 0 {
                        entry.attributes.start = offset(field.start);
                    }
                    entry.attributes.end = offset(field.body.end);
                }
                tag::SPAN_STATUS => {
                    schema::STATUS.check_nested(&reader, &field, SPAN_DEPTH)?;
                    entry.status(reader.nested(field.body));
                }
                _ => schema::SPAN.check_field(&reader, &field, SPAN_DEPTH)?,
            }
        }
        self.spans.push(entry);
        Ok(())
    }
}

// === impl SpanEntry ===

impl SpanEntry {
    fn new(place: Place, scope: u32) -> Self {
        Self {
            start_unix_nano: 0,
            end_unix_nano: 0,
            place,
            scope,
            trace_id: 0,
            span_id: 0,
            parent_span_id: 0,
            name: Text::default(),
            attributes: Text::default(),
            kind: 0,
            status_code: 0,
        }
    }

    /// Takes the code of a checked `Status`; one without a code leaves that of an earlier one.
    fn status(&mut self, mut reader: Reader<'_>) {
        while let Some(code) = reader.next_tagged(tag::STATUS_CODE) {
            self.status_code = enum_value(code.value);
        }
    }
}

/// Where an id lies; 0, where no id can, unless it has `LEN` bytes.
fn id_offset<const LEN: usize>(body: Body) -> u32 {
    if body.len() == LEN { offset(body.start) } else { 0 }
}

/// An enum is an int32 on the wire (higher bits are dropped). What is far from any value that OTLP has reads as 0, which
/// stands for "unspecified" and "unset".
fn enum_value(varint: u64) -> u8 {
    u8::try_from(varint as i32).unwrap_or(0)
}

/// Refuses the entry after the last that fits.
fn room<T>(entries: &[T], message: &schema::Message, place: Place) -> Result<(), ParseError> {
    if entries.len() < MAX_ENTRIES {
        return Ok(());
    }
    Err(ParseError { message: message.name, offset: place.field as usize, fault: Fault::TooMany })
}

/// The index of the entry that is pushed next.
fn index<T>(entries: &[T]) -> u32 {
    u32::try_from(entries.len()).expect("MAX_ENTRIES fits")
}

fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("MAX_REQUEST_BYTES fits")
}

/// In how many messages each lies.
const REQUEST_DEPTH: usize = 0;
const RESOURCE_SPANS_DEPTH: usize = 1;
const SCOPE_SPANS_DEPTH: usize = 2;
const SPAN_DEPTH: usize = 3;

/// Spans of kubelet and the runtimes take 300 to 600 bytes: a good first guess at how many there are.
const USUAL_SPAN_BYTES: usize = 512;

const _: () = assert!(size_of::<SpanEntry>() <= 64);
const _: () = assert!(MAX_ENTRIES <= MAX_REQUEST_BYTES && MAX_REQUEST_BYTES <= u32::MAX as usize);
