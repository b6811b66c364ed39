//! The spans of one received request on their way through the pipeline: the bytes as they came, and what is to be added.

use std::sync::Arc;

use spanlet_otlp::{Additions, TraceRequest};

use crate::call::Call;
use crate::pod::Owner;

/// Where spans came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Grpc,
    Http,
}

/// The spans of one acknowledged request.
#[derive(Debug)]
pub struct Batch {
    pub source: Source,
    pub request: TraceRequest,
    /// Attributes to append when the batch is encoded; nothing that came in is ever changed.
    pub additions: Additions,
    /// One entry a span, in the request's order: the finished call it was joined to. Filled by `correlate`.
    pub calls: Vec<Option<Arc<Call>>>,
    /// One entry a span: whose it is. Filled by `enrich`.
    pub owners: Vec<Option<Owner>>,
}

impl Batch {
    pub fn new(source: Source, request: TraceRequest) -> Self {
        let spans = request.span_count();
        let additions = Additions::new(&request);
        Self { source, request, additions, calls: vec![None; spans], owners: vec![None; spans] }
    }
}
