//! Arithmetic of time intervals: what a set of them covers, and what it leaves open.

/// Half-open: from `from_ns` up to, not including, `to_ns`; Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Interval {
    pub(super) const fn new(from_ns: u64, to_ns: u64) -> Self {
        Self { from_ns, to_ns }
    }

    pub(super) const fn length_ns(self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }

    /// The part of `self` inside `window`; `None` if that is empty.
    pub(super) fn within(self, window: Self) -> Option<Self> {
        let part = Self::new(self.from_ns.max(window.from_ns), self.to_ns.min(window.to_ns));
        (part.from_ns < part.to_ns).then_some(part)
    }

    /// `self` cut to `bounds`, empty at its edge if it lies outside; and whether it went on after them.
    pub(super) fn cut_to(self, bounds: Self) -> (Self, bool) {
        let from_ns = self.from_ns.clamp(bounds.from_ns, bounds.to_ns);
        (Self::new(from_ns, self.to_ns.clamp(from_ns, bounds.to_ns)), self.to_ns > bounds.to_ns)
    }
}

/// The parts of `window` that no interval covers, in order of time.
pub(super) fn gaps(window: Interval, intervals: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut inside: Vec<_> = intervals.into_iter().filter_map(|interval| interval.within(window)).collect();
    inside.sort_unstable();
    let mut gaps = Vec::new();
    let mut reached_ns = window.from_ns;
    for interval in inside {
        if interval.from_ns > reached_ns {
            gaps.push(Interval::new(reached_ns, interval.from_ns));
        }
        reached_ns = reached_ns.max(interval.to_ns);
    }
    if reached_ns < window.to_ns {
        gaps.push(Interval::new(reached_ns, window.to_ns));
    }
    gaps
}

/// The part of `window` that the intervals cover, overlaps counted once; 1 for an empty window.
pub(super) fn covered_ratio(window: Interval, intervals: impl IntoIterator<Item = Interval>) -> f64 {
    if window.length_ns() == 0 {
        return 1.0;
    }
    let open_ns: u64 = gaps(window, intervals).into_iter().map(Interval::length_ns).sum();
    1.0 - open_ns as f64 / window.length_ns() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(bounds: &[(u64, u64)]) -> Vec<Interval> {
        bounds.iter().map(|&(from_ns, to_ns)| Interval::new(from_ns, to_ns)).collect()
    }

    #[test]
    fn gaps_are_what_is_left_open() {
        let window = Interval::new(10, 20);
        for (covered, open) in [
            (&[][..], &[(10, 20)][..]),
            (&[(10, 20)], &[]),
            (&[(0, 30)], &[]),
            (&[(0, 10), (20, 30)], &[(10, 20)]),
            (&[(12, 14)], &[(10, 12), (14, 20)]),
            (&[(16, 18), (12, 14)], &[(10, 12), (14, 16), (18, 20)]),
            (&[(12, 14), (14, 16)], &[(10, 12), (16, 20)]),
            (&[(11, 19), (12, 13)], &[(10, 11), (19, 20)]),
            (&[(5, 12), (11, 15), (19, 25)], &[(15, 19)]),
            (&[(15, 15), (18, 12)], &[(10, 20)]),
        ] {
            assert_eq!(gaps(window, intervals(covered)), intervals(open), "{covered:?}");
        }
    }

    #[test]
    fn overlaps_count_once() {
        let window = Interval::new(0, 100);
        for (covered, ratio) in [
            (&[][..], 0.0),
            (&[(0, 100)], 1.0),
            (&[(0, 50), (25, 75)], 0.75),
            (&[(0, 50), (0, 50), (10, 20)], 0.5),
            (&[(90, 500)], 0.1),
        ] {
            assert!((covered_ratio(window, intervals(covered)) - ratio).abs() < 1e-12, "{covered:?}");
        }
        assert!((covered_ratio(Interval::new(7, 7), []) - 1.0).abs() < f64::EPSILON);
    }
}
