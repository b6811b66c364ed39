//! Encodes a request with its additions: copies what came in and puts the additions between.
//!
//! A message that grows has its length prefix written anew, and so have the messages around it. Lengths are therefore
//! summed up first, from the inside out; then one pass copies.

use bytes::Bytes;

use crate::additions::Additions;
use crate::index::{Place, TraceRequest};
use crate::schema::tag;
use crate::wire::{len_field_len, put_len, put_varint, varint_len};

impl TraceRequest {
    /// The request with its additions, as an encoded `ExportTraceServiceRequest`. Without additions these are the bytes
    /// that were parsed, not copied.
    ///
    /// # Panics
    ///
    /// If the additions were made for another request.
    pub fn encode(&self, additions: &Additions) -> Bytes {
        assert!(additions.fit(self), "additions of another request");
        if additions.is_empty() {
            return self.bytes.clone();
        }
        let lengths = Lengths::of(self, additions);
        let mut encoder = Encoder {
            request: self,
            additions,
            lengths: &lengths,
            copied: 0,
            out: Vec::with_capacity(lengths.request),
        };
        encoder.encode();
        Bytes::from(encoder.out)
    }
}

/// Bytes that messages have with their additions, without their own tag and length prefix.
struct Lengths {
    request: usize,
    /// Of each `ResourceSpans`.
    resources: Vec<usize>,
    /// Of each `ScopeSpans`.
    scopes: Vec<usize>,
}

struct Encoder<'a> {
    request: &'a TraceRequest,
    additions: &'a Additions,
    lengths: &'a Lengths,
    /// Offset up to which the request has been copied.
    copied: usize,
    out: Vec<u8>,
}

// === impl Lengths ===

impl Lengths {
    fn of(request: &TraceRequest, additions: &Additions) -> Self {
        let mut lengths = Self {
            request: 0,
            resources: Vec::with_capacity(request.resources.len()),
            scopes: Vec::with_capacity(request.scopes.len()),
        };
        let mut request_growth = 0;
        for (index, resource) in request.resources.iter().enumerate() {
            let mut resource_growth = match (additions.resource_len(index), resource.resource) {
                (0, _) => 0,
                (added, Some(place)) => {
                    let removed: usize = additions.removed(index).map(|field| field.len()).sum();
                    growth(request, place, place.len() + added - removed)
                }
                (added, None) => len_field_len(tag::RESOURCE_SPANS_RESOURCE, added).cast_signed(),
            };
            for scope in &request.scopes[resource.scopes()] {
                let mut scope_growth = 0;
                for span in scope.spans() {
                    let place = request.spans[span].place;
                    scope_growth += growth(request, place, place.len() + additions.span_len(span));
                }
                let len = grown(scope.place.len(), scope_growth);
                lengths.scopes.push(len);
                resource_growth += growth(request, scope.place, len);
            }
            let len = grown(resource.place.len(), resource_growth);
            lengths.resources.push(len);
            request_growth += growth(request, resource.place, len);
        }
        lengths.request = grown(request.bytes.len(), request_growth);
        lengths
    }
}

/// By how many bytes a field grows when its content gets `len` bytes. That may be negative: a length prefix may have come
/// with more bytes than it needs.
fn growth(request: &TraceRequest, place: Place, len: usize) -> isize {
    if len == place.len() {
        return 0;
    }
    let old_prefix = place.start as usize - request.length_offset(place);
    (varint_len(len as u64) + len).cast_signed() - (old_prefix + place.len()).cast_signed()
}

fn grown(len: usize, growth: isize) -> usize {
    len.checked_add_signed(growth).expect("no message shrinks by more than its length prefixes")
}

// === impl Encoder ===

impl Encoder<'_> {
    fn encode(&mut self) {
        let request = self.request;
        for (index, resource) in request.resources.iter().enumerate() {
            self.resize(resource.place, self.lengths.resources[index]);
            // The resource stands among the scopes, usually before them.
            let at = resource.resource.map_or(resource.place.start, |place| place.field);
            let mut scopes = resource.scopes().peekable();
            while let Some(scope) = scopes.next_if(|scope| request.scopes[*scope].place.field < at) {
                self.scope(scope);
            }
            self.resource(index);
            scopes.for_each(|scope| self.scope(scope));
        }
        self.copy_until(request.bytes.len());
    }

    fn resource(&mut self, index: usize) {
        let added = self.additions.resource_len(index);
        if added == 0 {
            return;
        }
        let entry = &self.request.resources[index];
        if let Some(place) = entry.resource {
            let removed: usize = self.additions.removed(index).map(|field| field.len()).sum();
            self.resize(place, place.len() + added - removed);
            for field in self.additions.removed(index) {
                self.copy_until(field.start);
                self.copied = field.end;
            }
            self.copy_until(place.end as usize);
        } else {
            self.copy_until(entry.place.start as usize);
            put_len(&mut self.out, tag::RESOURCE_SPANS_RESOURCE, added);
        }
        self.additions.put_resource(index, &mut self.out);
    }

    fn scope(&mut self, index: usize) {
        let entry = &self.request.scopes[index];
        self.resize(entry.place, self.lengths.scopes[index]);
        for span in entry.spans() {
            let added = self.additions.span_len(span);
            if added > 0 {
                let place = self.request.spans[span].place;
                self.resize(place, place.len() + added);
                self.copy_until(place.end as usize);
                self.additions.put_span(span, &mut self.out);
            }
        }
    }

    /// Copies up to a field's length prefix and writes that anew, unless the length is the old one.
    fn resize(&mut self, place: Place, len: usize) {
        if len != place.len() {
            self.copy_until(self.request.length_offset(place));
            put_varint(&mut self.out, len as u64);
            self.copied = place.start as usize;
        }
    }

    fn copy_until(&mut self, end: usize) {
        self.out.extend_from_slice(&self.request.bytes[self.copied..end]);
        self.copied = end;
    }
}
