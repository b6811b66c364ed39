//! What messages hold besides the messages that a split takes apart.

use std::ops::Range;

use crate::index::{Place, TraceRequest};

/// The bytes of messages that are not their `ResourceSpans`, `ScopeSpans` or spans.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) request: Frame,
    pub(super) resources: Vec<Frame>,
    pub(super) scopes: Vec<Frame>,
}

/// Ranges of the request, in order, none of them empty.
#[derive(Debug, Default)]
pub(super) struct Frame {
    ranges: Vec<Range<usize>>,
    pub(super) len: usize,
}

/// Writes a frame around the children that a part takes.
pub(super) struct FrameWriter<'a> {
    bytes: &'a [u8],
    ranges: std::slice::Iter<'a, Range<usize>>,
}

// === impl Frames, Frame ===

impl Frames {
    pub(super) fn of(request: &TraceRequest) -> Self {
        let resources = request.resources.iter().map(|entry| {
            Frame::around(entry.place.body(), request.scopes[entry.scopes()].iter().map(|scope| scope.place))
        });
        let scopes = request
            .scopes
            .iter()
            .map(|entry| Frame::around(entry.place.body(), request.spans[entry.spans()].iter().map(|span| span.place)));
        Self {
            request: Frame::around(0..request.encoded_len(), request.resources.iter().map(|entry| entry.place)),
            resources: resources.collect(),
            scopes: scopes.collect(),
        }
    }
}

impl Frame {
    /// What the message at `body` holds between and around its children.
    fn around(body: Range<usize>, children: impl Iterator<Item = Place>) -> Self {
        let mut frame = Self::default();
        let mut position = body.start;
        for child in children {
            frame.push(position..child.field as usize);
            position = child.end as usize;
        }
        frame.push(position..body.end);
        frame
    }

    fn push(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.len += range.len();
            self.ranges.push(range);
        }
    }

    pub(super) fn writer<'a>(&'a self, request: &'a TraceRequest) -> FrameWriter<'a> {
        FrameWriter { bytes: &request.bytes, ranges: self.ranges.iter() }
    }
}

// === impl FrameWriter ===

impl FrameWriter<'_> {
    /// Writes what stands before a child.
    pub(super) fn put_until(&mut self, child: Place, out: &mut Vec<u8>) {
        while let Some(range) = self.ranges.as_slice().first()
            && range.start < child.field as usize
        {
            out.extend_from_slice(&self.bytes[range.clone()]);
            self.ranges.next();
        }
    }

    pub(super) fn put_rest(self, out: &mut Vec<u8>) {
        for range in self.ranges {
            out.extend_from_slice(&self.bytes[range.clone()]);
        }
    }
}
