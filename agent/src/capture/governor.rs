//! The kill switch: whether the programs take more of a CPU than they may, and how long they rest then.
//!
//! ```text
//!            over capture.max_cpu_ratio for a window
//! attached ──────────────────────────────────────────► resting ──1, 2, 4 … 60 min──► attached
//!     └── a quiet hour: the next rest is a minute again
//! ```

use std::time::Duration;

/// What is compared with the limit is the mean over this long: an image pull may be busy for a second.
const WINDOW: Duration = Duration::from_secs(10);

/// The first rest, and the longest: each is twice the one before.
const FIRST_REST: Duration = Duration::from_secs(60);
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// Programs that were attached for so long without passing the limit are taken for cheap again.
const QUIET: Duration = Duration::from_secs(3600);

/// Watches what the programs cost while they are attached. Times are nanoseconds of any steady clock.
#[derive(Debug)]
pub struct Governor {
    /// Part of one core; `None` never stops anything.
    max_ratio: Option<f64>,
    window_began_ns: u64,
    cost_at_began_ns: u64,
}

impl Governor {
    pub fn new(max_ratio: Option<f64>, now_ns: u64) -> Self {
        Self { max_ratio, window_began_ns: now_ns, cost_at_began_ns: 0 }
    }

    /// Takes what the programs have cost since they were attached. At the end of a window that passed the limit, tells the
    /// part of a core that they took in it.
    pub fn exceeded(&mut self, now_ns: u64, cost_ns: u64) -> Option<f64> {
        let passed_ns = now_ns.saturating_sub(self.window_began_ns);
        if u128::from(passed_ns) < WINDOW.as_nanos() {
            return None;
        }
        let ratio = cost_ns.saturating_sub(self.cost_at_began_ns) as f64 / passed_ns as f64;
        self.window_began_ns = now_ns;
        self.cost_at_began_ns = cost_ns;
        self.max_ratio.filter(|max| ratio > *max).map(|_| ratio)
    }
}

/// How long to rest.
#[derive(Debug)]
pub struct Rests {
    next: Duration,
}

impl Rests {
    pub fn new() -> Self {
        Self { next: FIRST_REST }
    }

    /// The rest for programs that were attached for so long.
    pub fn after(&mut self, attached: Duration) -> Duration {
        if attached >= QUIET {
            self.next = FIRST_REST;
        }
        let rest = self.next;
        self.next = (rest * 2).min(LONGEST_REST);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn the_mean_of_a_window_decides() {
        let mut governor = Governor::new(Some(0.02), 0);
        assert_eq!(governor.exceeded(5 * SECOND_NS, SECOND_NS), None, "20 % for half a window");
        assert_eq!(governor.exceeded(10 * SECOND_NS, SECOND_NS), Some(0.1));
        assert_eq!(governor.exceeded(20 * SECOND_NS, SECOND_NS + SECOND_NS / 5), None, "exactly 2 %");
        assert_eq!(governor.exceeded(30 * SECOND_NS, 3 * SECOND_NS), Some(0.18));
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        assert_eq!(Governor::new(None, 0).exceeded(10 * SECOND_NS, 100 * SECOND_NS), None);
    }

    #[test]
    fn rests_grow_until_the_programs_were_cheap_for_long() {
        let mut rests = Rests::new();
        let minutes = [1, 2, 4, 8, 16, 32, 60, 60].map(|minutes| Duration::from_secs(60 * minutes));
        assert_eq!(minutes.map(|_| rests.after(Duration::from_secs(10))), minutes);
        assert_eq!(rests.after(QUIET), FIRST_REST);
    }
}
