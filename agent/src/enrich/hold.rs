//! Requests that wait for the pods of their spans: for an agent without probes whose user rather waits than not know.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Enricher;
use crate::batch::Batch;

/// Requests in the order in which they came, each with what goes along with it.
#[derive(Debug)]
pub struct Hold<T> {
    longest: Duration,
    max_bytes: usize,
    bytes: usize,
    waiting: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    batch: Batch,
    luggage: T,
    until: Instant,
}

impl<T> Hold<T> {
    /// Holds requests for at most `longest`, and at most `max_bytes` of them.
    pub fn new(longest: Duration, max_bytes: usize) -> Self {
        Self { longest, max_bytes, bytes: 0, waiting: VecDeque::new() }
    }

    pub fn is_off(&self) -> bool {
        self.longest.is_zero()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps a request. Those that there is no room for, the oldest, are to be passed on now.
    pub fn keep(&mut self, batch: Batch, luggage: T, now: Instant) -> Vec<(Batch, T)> {
        self.bytes += batch.request.memory_bytes();
        self.waiting.push_back(Waiting { batch, luggage, until: now + self.longest });
        let mut squeezed_out = Vec::new();
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.waiting.pop_front()
        {
            squeezed_out.push(self.left(oldest));
        }
        squeezed_out
    }

    /// The requests that wait for nothing any more, or have waited long enough.
    pub fn take_ready(&mut self, enricher: &mut Enricher, now: Instant) -> Vec<(Batch, T)> {
        let mut ready = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            enricher.identify_again(&mut waiting.batch);
            if waiting.until <= now || !enricher.awaits(&waiting.batch) {
                ready.push(self.left(waiting));
            } else {
                self.waiting.push_back(waiting);
            }
        }
        ready
    }

    /// All requests: nothing waits any longer.
    pub fn take_all(&mut self) -> Vec<(Batch, T)> {
        let all = std::mem::take(&mut self.waiting);
        all.into_iter().map(|waiting| self.left(waiting)).collect()
    }

    fn left(&mut self, waiting: Waiting<T>) -> (Batch, T) {
        self.bytes -= waiting.batch.request.memory_bytes();
        (waiting.batch, waiting.luggage)
    }
}
