//! The calls that spans may still ask for, by the ids of their `traceparent`.
//!
//! ```text
//!  Started ──► running ──Finished──► over ──window passed──► forgotten
//!                 └──────── table full: the oldest goes ────────┘ (counted)
//! ```

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;

use crate::call::Call;

/// Trace id and span id of a call's `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallKey {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

/// A call and what has been joined to it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) call: Arc<Call>,
    running: bool,
    /// A client span was joined; a second one with the same ids is a duplicate export.
    pub(super) client_joined: bool,
    /// The server span that was joined.
    pub(super) server_span: Option<[u8; 8]>,
    /// A span has told the method already.
    pub(super) named: bool,
}

/// What became of a call that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    /// Another call carries the same ids and keeps them.
    Refused,
}

/// Calls by key, oldest first in `order`; every key is in both exactly once.
#[derive(Debug)]
pub(super) struct CallTable {
    known: HashMap<CallKey, Known>,
    order: VecDeque<CallKey>,
    max_calls: usize,
    evicted: u64,
}

/// How long a finished call is kept for its spans: kubelet and runtime batch for 5 s and retry for 10 s, and the
/// request may then have waited as long again in a collector before us.
const KEPT_AFTER_END_NS: u64 = 120_000_000_000;

/// Calls kept whatever their age, so that a stepped clock does not empty the table. Some 0.5 MiB.
const ALWAYS_KEPT: usize = 1024;

/// Old calls looked at for each new one: more than one, so that the table shrinks.
const EXPIRED_PER_PUT: usize = 2;

/// Span ids are random and rarely equal across traces: they alone spread the keys well.
impl Hash for CallKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_ne_bytes(self.span_id));
    }
}

impl CallTable {
    pub(super) fn new(max_calls: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), max_calls, evicted: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Calls that were forgotten because the table was full.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn find(&mut self, key: &CallKey) -> Option<&mut Known> {
        self.known.get_mut(key)
    }

    /// Puts a call in, or replaces what was known of it.
    pub(super) fn put(&mut self, key: CallKey, call: &Call, running: bool) -> Put {
        match self.known.entry(key) {
            Slot::Occupied(mut slot) => {
                let known = slot.get_mut();
                if (known.call.connection, known.call.stream) != (call.connection, call.stream) {
                    return Put::Refused;
                }
                known.call = Arc::new(call.clone());
                known.running = running;
            }
            Slot::Vacant(slot) => {
                slot.insert(Known {
                    call: Arc::new(call.clone()),
                    running,
                    client_joined: false,
                    server_span: None,
                    named: false,
                });
                self.order.push_back(key);
            }
        }
        self.forget_old(call.ended_ns);
        Put::Taken
    }

    fn forget_old(&mut self, now_ns: u64) {
        while self.order.len() > self.max_calls {
            self.evicted += 1;
            self.forget_oldest();
        }
        for _ in 0..EXPIRED_PER_PUT {
            if self.order.len() <= ALWAYS_KEPT {
                return;
            }
            let oldest = self.order[0];
            match self.known.get(&oldest) {
                // One that runs on (an event stream, an attach) must not keep those behind it.
                Some(known) if known.running => self.order.rotate_left(1),
                Some(known) if known.call.ended_ns.saturating_add(KEPT_AFTER_END_NS) > now_ns => return,
                _ => self.forget_oldest(),
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(key) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }
}
