//! Evidence that came before anything told whose it is, by trace: kubelet exports a call's span up to 5 s before the
//! `syncPod` span that names the pod, and a runtime earlier still.

use std::collections::{HashMap, VecDeque};

use super::pod_record::{OVERHEAD_BYTES, Piece};
use super::pods::PodId;

/// Most traces whose pod is remembered; a start has a handful.
const MAX_CLAIMS: usize = 4096;

pub(super) type TraceId = [u8; 16];

#[derive(Debug)]
pub(super) struct Unclaimed {
    held: HashMap<TraceId, Vec<Piece>>,
    /// Traces in `held`, the oldest first.
    order: VecDeque<TraceId>,
    held_bytes: usize,
    limit_bytes: usize,
    claims: HashMap<TraceId, PodId>,
    claim_order: VecDeque<TraceId>,
}

impl Unclaimed {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            held: HashMap::new(),
            order: VecDeque::new(),
            held_bytes: 0,
            limit_bytes,
            claims: HashMap::new(),
            claim_order: VecDeque::new(),
        }
    }

    /// The pod that a trace is known to be of.
    pub(super) fn pod_of(&self, trace_id: &TraceId) -> Option<PodId> {
        self.claims.get(trace_id).copied()
    }

    pub(super) fn holds(&self, trace_id: &TraceId) -> bool {
        self.held.contains_key(trace_id)
    }

    /// Gives the trace to a pod; the first to claim it keeps it. What was held of it comes back.
    pub(super) fn claim(&mut self, trace_id: TraceId, pod: PodId) -> Vec<Piece> {
        if self.claims.contains_key(&trace_id) {
            return Vec::new();
        }
        if self.claim_order.len() == MAX_CLAIMS
            && let Some(oldest) = self.claim_order.pop_front()
        {
            self.claims.remove(&oldest);
        }
        self.claims.insert(trace_id, pod);
        self.claim_order.push_back(trace_id);
        let pieces = self.held.remove(&trace_id).unwrap_or_default();
        if !pieces.is_empty() {
            self.order.retain(|held| *held != trace_id);
            self.held_bytes -= bytes_of(&pieces);
        }
        pieces
    }

    /// Keeps `piece` until its trace is claimed or room is needed. Most is never claimed: the runtime is polled all the time.
    pub(super) fn hold(&mut self, trace_id: TraceId, piece: Piece) {
        let pieces = self.held.entry(trace_id).or_insert_with(|| {
            self.order.push_back(trace_id);
            Vec::new()
        });
        let before = bytes_of(pieces);
        pieces.push(piece);
        self.held_bytes += bytes_of(pieces) - before;
        while self.held_bytes > self.limit_bytes
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(pieces) = self.held.remove(&oldest) {
                self.held_bytes -= bytes_of(&pieces);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.held_bytes + self.claims.len() * (2 * size_of::<TraceId>() + size_of::<PodId>() + OVERHEAD_BYTES)
    }
}

/// 0 for none, so that a trace counts from its first piece.
fn bytes_of(pieces: &Vec<Piece>) -> usize {
    if pieces.is_empty() {
        return 0;
    }
    let texts: usize = pieces.iter().map(Piece::heap_bytes).sum();
    pieces.capacity() * size_of::<Piece>() + texts + 2 * size_of::<TraceId>() + 2 * OVERHEAD_BYTES
}
