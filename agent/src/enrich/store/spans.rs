//! Owners of single spans, for traces that are not one pod's: a span tells its children, and a runtime's server span the
//! client span above it, which usually comes later in another request.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::pod::Owner;

type SpanKey = ([u8; 16], [u8; 8]);

/// Owners by trace id and span id; the oldest go first.
#[derive(Debug, Default)]
pub(in crate::enrich) struct SpanOwners {
    owners: HashMap<SpanKey, Owner>,
    order: VecDeque<SpanKey>,
}

/// Most spans kept: without calls from the wire a node makes some 10 such spans a second, and the client's follow the
/// server's within 10 s.
const MAX_SPANS: usize = 1792;

impl SpanOwners {
    pub(in crate::enrich) fn find(&self, trace_id: [u8; 16], span_id: [u8; 8]) -> Option<&Owner> {
        self.owners.get(&(trace_id, span_id))
    }

    pub(in crate::enrich) fn put(&mut self, trace_id: [u8; 16], span_id: [u8; 8], owner: &Owner) {
        let key = (trace_id, span_id);
        if self.owners.insert(key, owner.clone()).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MAX_SPANS
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }
}
