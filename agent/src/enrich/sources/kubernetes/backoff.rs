//! How long to wait before what failed is done again.

use std::time::Duration;

use tokio::time::Instant;

/// A failure this long after the one before is a new trouble. client-go's reflectors count anew after the same time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// Pauses that double from the first to the longest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    /// When the last pause is over.
    until: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0, until: None }
    }

    /// Failures in a row, the last one among them.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// What was asked for came: the next failure is a new trouble.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The pause after a failure at `now`, scattered over its upper half by `jitter` (0 to 1).
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) -> Duration {
        if self.until.is_some_and(|until| now.saturating_duration_since(until) > FORGOTTEN_AFTER) {
            self.failures = 0;
        }
        let doublings = self.failures.min(16); // beyond any longest pause before
        self.failures = self.failures.saturating_add(1);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        let pause = whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.until = Some(now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (mut backoff, now) = (Backoff::new(SECOND, SECOND * 6), Instant::now());
        let pauses = [1.0; 5].map(|jitter| backoff.failed(now, jitter));
        assert_eq!(pauses, [1, 2, 4, 6, 6].map(Duration::from_secs));
        assert_eq!(backoff.failed(now, 0.0), SECOND * 3, "half of it is the least");
    }

    #[test]
    fn success_and_time_start_anew() {
        let (mut backoff, now) = (Backoff::new(SECOND, SECOND * 6), Instant::now());
        assert_eq!([1.0; 2].map(|jitter| backoff.failed(now, jitter)), [SECOND, SECOND * 2]);
        backoff.succeeded();
        assert_eq!(backoff.failed(now, 1.0), SECOND);
        let later = now + FORGOTTEN_AFTER + SECOND;
        assert_eq!(backoff.failed(later, 1.0), SECOND * 2, "counted from the end of the pause");
        assert_eq!(backoff.failed(later + FORGOTTEN_AFTER + SECOND * 3, 1.0), SECOND);
    }

    #[test]
    fn a_day_of_failures_overflows_nothing() {
        let mut backoff = Backoff::new(SECOND, SECOND * 30);
        let mut now = Instant::now();
        for _ in 0..100_000 {
            now += backoff.failed(now, 0.5);
        }
        assert_eq!(backoff.failed(now, 1.0), SECOND * 30);
    }
}
