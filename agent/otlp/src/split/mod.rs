//! Merges encoded requests into one and splits one into several.
//!
//! A part holds some of the spans, and around them everything that the messages they lie in hold besides spans: the
//! resource, the scope, schema URLs, unknown fields. That "frame" of a message is repeated in each part that has spans of
//! it. Spans, frames and their order stay as they came; tags and length prefixes of the messages around spans are written
//! anew. Messages without spans are left out.

mod frame;
mod plan;

use bytes::Bytes;

use self::frame::Frames;
use self::plan::Plan;
use crate::error::ParseError;
use crate::index::TraceRequest;
use crate::schema::tag;
use crate::wire::put_len;

/// One encoded request with the spans of all, in their order: concatenating encoded messages merges them, and the lists
/// of the parts follow each other. Requests that [`TraceRequest::parse`] would refuse spoil the whole.
pub fn merge(requests: &[Bytes]) -> Bytes {
    if let [only] = requests {
        return only.clone();
    }
    Bytes::from(requests.concat())
}

/// Splits an encoded request into parts of at most `max_spans` spans and `max_bytes` bytes, each a request of its own. A
/// span that is too long by itself, with the messages around it, is alone in its part. What fits as it is, or has no
/// spans, is the only part, not copied.
///
/// # Errors
///
/// When the bytes are no trace request; see [`TraceRequest::parse`].
pub fn split(request: Bytes, max_spans: usize, max_bytes: usize) -> Result<Parts, ParseError> {
    let request = TraceRequest::parse(request)?;
    Ok(Parts { frames: Frames::of(&request), request, max_spans, max_bytes, next_span: Some(0) })
}

/// The parts of a split request. Each is made when it is asked for: frames are repeated, so all of them together may be
/// much longer than the request.
#[derive(Debug)]
pub struct Parts {
    request: TraceRequest,
    frames: Frames,
    max_spans: usize,
    max_bytes: usize,
    /// First span of the next part; `None` when there is no further part.
    next_span: Option<usize>,
}

// === impl Parts ===

impl Iterator for Parts {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let first = self.next_span?;
        let spans = self.request.span_count();
        let fits = spans <= self.max_spans && self.request.encoded_len() <= self.max_bytes;
        if spans == 0 || first == 0 && fits {
            self.next_span = None;
            return Some(self.request.bytes.clone());
        }
        let plan = Plan::of(&self.request, &self.frames, first, self.max_spans, self.max_bytes);
        let next = first + plan.spans;
        self.next_span = (next < spans).then_some(next);
        Some(self.write(&plan))
    }
}

impl Parts {
    fn write(&self, plan: &Plan) -> Bytes {
        let mut out = Vec::with_capacity(plan.len);
        let (request, frames) = (&self.request, &self.frames);
        let mut frame = frames.request.writer(request);
        for resource in &plan.resources {
            frame.put_until(request.resources[resource.resource].place, &mut out);
            put_len(&mut out, tag::REQUEST_RESOURCE_SPANS, resource.len);
            let mut frame = frames.resources[resource.resource].writer(request);
            for scope in &resource.scopes {
                frame.put_until(request.scopes[scope.scope].place, &mut out);
                put_len(&mut out, tag::RESOURCE_SPANS_SCOPE_SPANS, scope.len);
                let mut frame = frames.scopes[scope.scope].writer(request);
                for span in &request.spans[scope.spans.clone()] {
                    frame.put_until(span.place, &mut out);
                    out.extend_from_slice(&request.bytes[span.place.field()]);
                }
                frame.put_rest(&mut out);
            }
            frame.put_rest(&mut out);
        }
        frame.put_rest(&mut out);
        Bytes::from(out)
    }
}
