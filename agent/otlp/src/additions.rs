//! Collects what is to be appended to the spans and resources of a request.
//!
//! Additions are encoded when they are made, into one buffer for the whole request; those of one target are chained
//! through it, and what is added to one target in a row is one piece.

use std::ops::Range;

use crate::attribute::{put_attribute, put_link};
use crate::index::TraceRequest;
use crate::schema::tag;
use crate::view::Value;

/// Attributes and links to append when a request is encoded. Nothing that came in is changed or removed, but by
/// [`Additions::resource_replace_str`], and keys are not looked up: whoever adds a key checks first that the span or resource
/// lacks it.
///
/// Spans and resources are named by their index in the request; one that the request does not have panics, as slices do.
#[derive(Debug, Clone)]
pub struct Additions {
    spans: usize,
    resources: usize,
    /// Of each span, then of each resource; empty until something is added.
    chains: Vec<Chain>,
    pieces: Vec<Piece>,
    /// The encoded fields.
    bytes: Vec<u8>,
    /// Attributes to leave out.
    removed: Vec<Removed>,
}

/// An attribute of a resource's last message: the bytes of its field.
#[derive(Debug, Clone)]
struct Removed {
    resource: usize,
    field: Range<usize>,
}

/// What is added to one span or resource.
#[derive(Debug, Clone, Copy)]
struct Chain {
    /// Index of its first piece and of its last.
    pieces: Option<(u32, u32)>,
    /// Bytes of all pieces.
    len: usize,
}

/// A range of the buffer.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    next: Option<u32>,
}

/// Attributes that a span was given, to be given to other spans of the same request; they are held once.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    start: usize,
    end: usize,
}

impl Additions {
    /// Nothing to add to `request` yet.
    pub fn new(request: &TraceRequest) -> Self {
        Self {
            spans: request.span_count(),
            resources: request.resource_count(),
            chains: Vec::new(),
            pieces: Vec::new(),
            bytes: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of memory that the additions hold.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.removed.capacity() * size_of::<Removed>()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.chains.capacity() * size_of::<Chain>()
    }

    /// Adds an attribute to a span.
    pub fn span_attribute(&mut self, span: usize, key: &str, value: Value<'_>) {
        assert!(span < self.spans, "span {span} of {}", self.spans);
        self.add(span, |out| put_attribute(out, tag::SPAN_ATTRIBUTES, key, value));
    }

    /// Adds attributes to a span; quicker than one by one.
    pub fn span_attributes<'a>(&mut self, span: usize, attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>) {
        assert!(span < self.spans, "span {span} of {}", self.spans);
        self.add(span, |out| {
            for (key, value) in attributes {
                put_attribute(out, tag::SPAN_ATTRIBUTES, key, value);
            }
        });
    }

    /// As [`span_attributes`](Self::span_attributes), for other spans as well.
    pub fn span_attributes_shared<'a>(
        &mut self,
        span: usize,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) -> Shared {
        let start = self.bytes.len();
        self.span_attributes(span, attributes);
        Shared { start, end: self.bytes.len() }
    }

    /// Adds attributes that another span of the request was given.
    pub fn span_shared(&mut self, span: usize, shared: Shared) {
        assert!(span < self.spans, "span {span} of {}", self.spans);
        assert!(shared.end <= self.bytes.len(), "the attributes are of another request");
        self.chain(span, shared.start, shared.end);
    }

    /// Adds a string attribute to a span.
    pub fn span_str(&mut self, span: usize, key: &str, value: &str) {
        self.span_attribute(span, key, Value::Str(value));
    }

    /// Adds an integer attribute to a span.
    pub fn span_int(&mut self, span: usize, key: &str, value: i64) {
        self.span_attribute(span, key, Value::Int(value));
    }

    /// Adds a truth value to a span.
    pub fn span_bool(&mut self, span: usize, key: &str, value: bool) {
        self.span_attribute(span, key, Value::Bool(value));
    }

    /// Adds a link to another span.
    pub fn span_link(&mut self, span: usize, trace_id: [u8; 16], span_id: [u8; 8]) {
        assert!(span < self.spans, "span {span} of {}", self.spans);
        self.add(span, |out| put_link(out, trace_id, span_id));
    }

    /// Adds an attribute to the resource of a `ResourceSpans`.
    pub fn resource_attribute(&mut self, resource: usize, key: &str, value: Value<'_>) {
        assert!(resource < self.resources, "resource {resource} of {}", self.resources);
        self.add(self.spans + resource, |out| put_attribute(out, tag::RESOURCE_ATTRIBUTES, key, value));
    }

    /// Adds a string attribute to the resource of a `ResourceSpans`.
    pub fn resource_str(&mut self, resource: usize, key: &str, value: &str) {
        self.resource_attribute(resource, key, Value::Str(value));
    }

    /// Gives an attribute of a resource another value, if the resource has it; whether it has. The attribute moves to the
    /// end. Of one given more than once only the first is looked at, and only if it is in the resource's last message.
    pub fn resource_replace_str(&mut self, request: &TraceRequest, resource: usize, key: &str, value: &str) -> bool {
        let Some(field) = request.resource(resource).attribute_field(key) else { return false };
        let is_removed = self.removed.iter().any(|removed| removed.field == field);
        if !is_removed {
            self.removed.push(Removed { resource, field });
            self.removed.sort_by_key(|removed| removed.field.start);
        }
        self.resource_str(resource, key, value);
        true
    }

    /// What to leave out of a resource's last message, in the order of the bytes.
    pub(crate) fn removed(&self, resource: usize) -> impl Iterator<Item = Range<usize>> {
        self.removed.iter().filter(move |removed| removed.resource == resource).map(|removed| removed.field.clone())
    }

    /// Whether they were made for a request of this shape.
    pub(crate) fn fit(&self, request: &TraceRequest) -> bool {
        self.spans == request.span_count() && self.resources == request.resource_count()
    }

    /// Bytes added to a span.
    pub(crate) fn span_len(&self, span: usize) -> usize {
        self.chains.get(span).map_or(0, |chain| chain.len)
    }

    /// Bytes added to a resource.
    pub(crate) fn resource_len(&self, resource: usize) -> usize {
        self.span_len(self.spans + resource)
    }

    pub(crate) fn put_span(&self, span: usize, out: &mut Vec<u8>) {
        let mut next = self.chains.get(span).and_then(|chain| chain.pieces).map(|(first, _)| first);
        while let Some(piece) = next {
            let piece = &self.pieces[piece as usize];
            out.extend_from_slice(&self.bytes[piece.start..piece.end]);
            next = piece.next;
        }
    }

    pub(crate) fn put_resource(&self, resource: usize, out: &mut Vec<u8>) {
        self.put_span(self.spans + resource, out);
    }

    /// Appends what `put` writes to the chain of `target`.
    fn add(&mut self, target: usize, put: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        put(&mut self.bytes);
        self.chain(target, start, self.bytes.len());
    }

    /// Appends a range of the buffer to the chain of `target`.
    fn chain(&mut self, target: usize, start: usize, end: usize) {
        if self.chains.is_empty() {
            self.chains = vec![Chain { pieces: None, len: 0 }; self.spans + self.resources];
        }
        let chain = &mut self.chains[target];
        chain.len += end - start;
        if let Some((_, last)) = chain.pieces
            && self.pieces[last as usize].end == start
        {
            self.pieces[last as usize].end = end;
            return;
        }
        let new = u32::try_from(self.pieces.len()).expect("4 G pieces would fill 100 GB");
        self.pieces.push(Piece { start, end, next: None });
        match &mut chain.pieces {
            None => chain.pieces = Some((new, new)),
            Some((_, last)) => {
                self.pieces[*last as usize].next = Some(new);
                *last = new;
            }
        }
    }
}
