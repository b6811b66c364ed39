//! Decides which spans a part takes, and how long the messages around them get.

use std::ops::Range;

use super::frame::Frames;
use crate::index::TraceRequest;
use crate::schema::tag;
use crate::wire::len_field_len;

/// What a part is made of.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) resources: Vec<ResourceShare>,
    pub(super) spans: usize,
    /// Bytes of the part.
    pub(super) len: usize,
}

/// A part's share of a `ResourceSpans`.
#[derive(Debug)]
pub(super) struct ResourceShare {
    pub(super) resource: usize,
    pub(super) scopes: Vec<ScopeShare>,
    /// Bytes of the share, without tag and length prefix.
    pub(super) len: usize,
}

/// A part's share of a `ScopeSpans`.
#[derive(Debug)]
pub(super) struct ScopeShare {
    pub(super) scope: usize,
    pub(super) spans: Range<usize>,
    /// Bytes of the share, without tag and length prefix.
    pub(super) len: usize,
}

/// Lengths of a part and of its last messages, without their own tag and length prefix.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    request: usize,
    resource: usize,
    scope: usize,
}

// === impl Plan ===

impl Plan {
    /// Takes spans from `first` on: as many as fit, at least one.
    pub(super) fn of(
        request: &TraceRequest,
        frames: &Frames,
        first: usize,
        max_spans: usize,
        max_bytes: usize,
    ) -> Self {
        let mut plan = Self { resources: Vec::new(), spans: 0, len: frames.request.len };
        for span in first..request.span_count() {
            let lengths = plan.lengths_with(request, frames, span);
            if plan.spans > 0 && (plan.spans >= max_spans || lengths.request > max_bytes) {
                break;
            }
            plan.push(request, span, lengths);
        }
        plan
    }

    /// The lengths with one more span.
    fn lengths_with(&self, request: &TraceRequest, frames: &Frames, span: usize) -> Lengths {
        let (resource_index, scope_index) = owners(request, span);
        let (old_resource, old_scope) = self.shares(resource_index, scope_index);

        let scope = old_scope.map_or(frames.scopes[scope_index].len, |share| share.len)
            + request.spans[span].place.field().len();
        let resource = old_resource.map_or(frames.resources[resource_index].len, |share| share.len)
            + len_field_len(tag::RESOURCE_SPANS_SCOPE_SPANS, scope)
            - old_scope.map_or(0, |share| len_field_len(tag::RESOURCE_SPANS_SCOPE_SPANS, share.len));
        let part = self.len + len_field_len(tag::REQUEST_RESOURCE_SPANS, resource)
            - old_resource.map_or(0, |share| len_field_len(tag::REQUEST_RESOURCE_SPANS, share.len));
        Lengths { request: part, resource, scope }
    }

    /// The shares that the next span joins, if its messages are the last ones.
    fn shares(&self, resource: usize, scope: usize) -> (Option<&ResourceShare>, Option<&ScopeShare>) {
        let resource = self.resources.last().filter(|share| share.resource == resource);
        let scope = resource.and_then(|share| share.scopes.last()).filter(|share| share.scope == scope);
        (resource, scope)
    }

    fn push(&mut self, request: &TraceRequest, span: usize, lengths: Lengths) {
        let (resource, scope) = owners(request, span);
        self.spans += 1;
        self.len = lengths.request;

        if self.resources.last().is_none_or(|share| share.resource != resource) {
            self.resources.push(ResourceShare { resource, scopes: Vec::new(), len: 0 });
        }
        let share = self.resources.last_mut().expect("pushed if there was none");
        share.len = lengths.resource;

        if share.scopes.last().is_none_or(|share| share.scope != scope) {
            share.scopes.push(ScopeShare { scope, spans: span..span, len: 0 });
        }
        let share = share.scopes.last_mut().expect("pushed if there was none");
        share.spans.end = span + 1;
        share.len = lengths.scope;
    }
}

/// Indices of a span's `ResourceSpans` and `ScopeSpans`.
fn owners(request: &TraceRequest, span: usize) -> (usize, usize) {
    let scope = request.spans[span].scope as usize;
    (request.scopes[scope].resource as usize, scope)
}
