//! The memory that spans may take on their way through the agent, in bytes, and how many spans that holds.
//!
//! Every byte of a request is reserved before it is read and given back when its spans have left, by export or
//! otherwise. What the budget refuses is refused to the sender, who still has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bookkeeping of one reservation: its queue entry, its handles, what the allocator rounds up. Keeps the number of
/// tiny requests bounded as well as their bytes.
const OVERHEAD_BYTES: usize = 256;

/// A count of bytes with a limit, shared by all who hold spans.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit_bytes: usize,
    queue_limit_bytes: usize,
    held_bytes: AtomicUsize,
    queued_bytes: AtomicUsize,
    held_spans: AtomicU64,
}

/// A share of the [`Budget`] and the spans it stands for; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
    queued: bool,
    spans: u64,
}

/// The budget has no room for what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for {wanted_bytes} more bytes of spans: {held_bytes} bytes are held, the limit is {limit_bytes}")]
pub struct Exhausted {
    pub wanted_bytes: usize,
    pub held_bytes: usize,
    pub limit_bytes: usize,
}

// === impl Budget ===

impl Budget {
    /// `limit_bytes` bounds everything held, `queue_limit_bytes` what waits for export.
    pub fn new(limit_bytes: usize, queue_limit_bytes: usize) -> Self {
        let shared = Shared {
            limit_bytes,
            queue_limit_bytes,
            held_bytes: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            held_spans: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Reserves `bytes` for a request that is about to be read.
    ///
    /// # Errors
    /// [`Exhausted`] if that would pass the limit, or if the export queue is full.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Exhausted> {
        let queued_bytes = self.queued_bytes();
        if queued_bytes >= self.shared.queue_limit_bytes {
            let limit_bytes = self.shared.queue_limit_bytes;
            return Err(Exhausted { wanted_bytes: bytes, held_bytes: queued_bytes, limit_bytes });
        }
        let bytes = bytes + OVERHEAD_BYTES;
        self.take(bytes)?;
        Ok(Reservation { budget: self.clone(), bytes, queued: false, spans: 0 })
    }

    /// The most that one reservation can be asked to cover, if `bytes` is more than that.
    pub fn clamp(&self, bytes: usize) -> usize {
        bytes.min(self.shared.limit_bytes.saturating_sub(OVERHEAD_BYTES))
    }

    /// Whether a request of a usual size would be taken now.
    pub fn has_room(&self) -> bool {
        self.queued_bytes() < self.shared.queue_limit_bytes && self.held_bytes() < self.shared.limit_bytes
    }

    pub fn held_bytes(&self) -> usize {
        self.shared.held_bytes.load(Relaxed)
    }

    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes.load(Relaxed)
    }

    /// Spans that were acknowledged or made and whose fate is open.
    pub fn held_spans(&self) -> u64 {
        self.shared.held_spans.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        let limit_bytes = self.shared.limit_bytes;
        self.shared
            .held_bytes
            .fetch_update(Relaxed, Relaxed, |held| held.checked_add(bytes).filter(|sum| *sum <= limit_bytes))
            .map(drop)
            .map_err(|held_bytes| Exhausted { wanted_bytes: bytes, held_bytes, limit_bytes })
    }
}

// === impl Reservation ===

impl Reservation {
    /// Makes the reservation cover at least `bytes`.
    ///
    /// # Errors
    /// [`Exhausted`] if that would pass the budget's limit; the reservation stays as it was.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let missing = (bytes + OVERHEAD_BYTES).saturating_sub(self.bytes);
        if missing > 0 {
            self.budget.take(missing)?;
            if self.queued {
                self.budget.shared.queued_bytes.fetch_add(missing, Relaxed);
            }
            self.bytes += missing;
        }
        Ok(())
    }

    /// Sets the reservation to what is really held. Never fails: what was acknowledged is kept, and what the agent
    /// adds to spans is small against what it reserved.
    pub fn resize(&mut self, bytes: usize) {
        let bytes = bytes + OVERHEAD_BYTES;
        let shared = &self.budget.shared;
        // Wrapping arithmetic: adding the difference modulo 2^64 is right for both signs.
        let difference = bytes.wrapping_sub(self.bytes);
        shared.held_bytes.fetch_add(difference, Relaxed);
        if self.queued {
            shared.queued_bytes.fetch_add(difference, Relaxed);
        }
        self.bytes = bytes;
    }

    /// From now on the reservation stands for `spans` spans.
    pub fn hold_spans(&mut self, spans: u64) {
        self.budget.shared.held_spans.fetch_add(spans.wrapping_sub(self.spans), Relaxed);
        self.spans = spans;
    }

    /// From now on the bytes count as waiting for export.
    pub fn mark_queued(&mut self) {
        if !self.queued {
            self.queued = true;
            self.budget.shared.queued_bytes.fetch_add(self.bytes, Relaxed);
        }
    }

    /// Takes a part of the spans and their bytes out into a reservation of its own.
    pub fn split_off(&mut self, bytes: usize, spans: u64) -> Self {
        let spans = spans.min(self.spans);
        let bytes = bytes.min(self.bytes);
        self.spans -= spans;
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), bytes, queued: self.queued, spans }
    }

    /// Makes one reservation of two. Both must be of one budget and both queued, or neither.
    pub fn absorb(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget.shared, &other.budget.shared) && self.queued == other.queued);
        self.bytes += std::mem::take(&mut other.bytes);
        self.spans += std::mem::take(&mut other.spans);
    }

    pub fn spans(&self) -> u64 {
        self.spans
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let shared = &self.budget.shared;
        shared.held_bytes.fetch_sub(self.bytes, Relaxed);
        shared.held_spans.fetch_sub(self.spans, Relaxed);
        if self.queued {
            shared.queued_bytes.fetch_sub(self.bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_would_pass_the_limit() {
        let budget = Budget::new(10_000, 10_000);
        let mut first = budget.reserve(6_000).unwrap();
        assert!(budget.reserve(4_000).is_err());
        assert!(first.grow_to(10_001).is_err());
        first.grow_to(9_000).unwrap();
        assert_eq!(budget.held_bytes(), 9_000 + OVERHEAD_BYTES);
        drop(first);
        assert_eq!(budget.held_bytes(), 0);
        budget.reserve(4_000).unwrap();
    }

    #[test]
    fn the_largest_request_takes_the_whole_budget() {
        let budget = Budget::new(10_000, 10_000);
        let mut largest = budget.reserve(6_000).unwrap();
        largest.grow_to(budget.clamp(12_000)).unwrap();
        assert_eq!(budget.held_bytes(), 10_000);
        assert_eq!(budget.clamp(5_000), 5_000);
    }

    #[test]
    fn refuses_new_requests_while_the_queue_is_full() {
        let budget = Budget::new(10_000, 1_000);
        let mut waiting = budget.reserve(2_000).unwrap();
        budget.reserve(1).unwrap();
        waiting.mark_queued();
        assert!(!budget.has_room());
        assert!(budget.reserve(1).is_err());
        drop(waiting);
        assert_eq!(budget.queued_bytes(), 0);
        assert!(budget.has_room());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(usize),
        Grow(usize),
        Resize(usize),
        Spans(u64),
        Queue,
        Split(usize, u64),
        Absorb,
        Drop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..5_000usize).prop_map(Step::Reserve),
            (0..5_000usize).prop_map(Step::Grow),
            (0..5_000usize).prop_map(Step::Resize),
            (0..100u64).prop_map(Step::Spans),
            Just(Step::Queue),
            (0..5_000usize, 0..100u64).prop_map(|(bytes, spans)| Step::Split(bytes, spans)),
            Just(Step::Absorb),
            Just(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn counts_are_the_sums_over_live_reservations(steps in proptest::collection::vec(step(), 0..60)) {
            let budget = Budget::new(20_000, 20_000);
            let mut live: Vec<Reservation> = Vec::new();
            for step in steps {
                match (step, live.last_mut()) {
                    (Step::Reserve(bytes), _) => live.extend(budget.reserve(bytes)),
                    (Step::Grow(bytes), Some(last)) => drop(last.grow_to(bytes)),
                    (Step::Resize(bytes), Some(last)) => last.resize(bytes),
                    (Step::Spans(spans), Some(last)) => last.hold_spans(spans),
                    (Step::Queue, Some(last)) => last.mark_queued(),
                    (Step::Split(bytes, spans), Some(last)) => {
                        let part = last.split_off(bytes, spans);
                        live.push(part);
                    }
                    (Step::Absorb, Some(last)) => {
                        let queued = last.queued;
                        let last = live.pop().expect("there is a last one");
                        if let Some(other) = live.iter_mut().find(|one| one.queued == queued) {
                            other.absorb(last);
                        }
                    }
                    (Step::Drop, Some(_)) => drop(live.pop()),
                    (_, None) => {}
                }
                prop_assert_eq!(budget.held_bytes(), live.iter().map(|one| one.bytes).sum::<usize>());
                prop_assert_eq!(budget.held_spans(), live.iter().map(|one| one.spans).sum::<u64>());
                let queued = live.iter().filter(|one| one.queued).map(|one| one.bytes).sum::<usize>();
                prop_assert_eq!(budget.queued_bytes(), queued);
            }
            drop(live);
            prop_assert_eq!((budget.held_bytes(), budget.queued_bytes(), budget.held_spans()), (0, 0, 0));
        }
    }
}
