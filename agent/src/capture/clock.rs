//! Kernel times are CLOCK_MONOTONIC; spans have wall time.

use std::time::Duration;

/// How often the distance between the clocks is taken again: wall time is slewed and stepped.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The distance between monotonic and wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Unix nanoseconds at monotonic zero.
    offset_ns: i64,
}

impl Clock {
    /// Reads both clocks now: the wall clock between two reads of the other.
    pub fn sample() -> Self {
        let before = read(libc::CLOCK_MONOTONIC);
        let wall = read(libc::CLOCK_REALTIME);
        let after = read(libc::CLOCK_MONOTONIC);
        Self { offset_ns: wall - (before + (after - before) / 2) }
    }

    /// A clock with a known offset.
    pub const fn with_offset_ns(offset_ns: i64) -> Self {
        Self { offset_ns }
    }

    /// Monotonic nanoseconds as Unix nanoseconds.
    pub fn unix_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns)
    }

    /// Now, in monotonic nanoseconds.
    pub fn monotonic_ns() -> u64 {
        read(libc::CLOCK_MONOTONIC).unsigned_abs()
    }
}

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; both clocks exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_becomes_wall_time() {
        assert_eq!(Clock::with_offset_ns(1_000).unix_ns(5), 1_005);
        assert_eq!(Clock::with_offset_ns(-10).unix_ns(5), 0);
    }
}
