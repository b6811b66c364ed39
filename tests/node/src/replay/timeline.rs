//! When, on this machine's clocks, what was recorded happens again.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// The kernel wakes a sleeper some 50 µs late; the last stretch is waited out awake.
const SPIN_NS: u64 = 100_000;

/// Maps recorded times (Unix nanoseconds) to CLOCK_MONOTONIC, which all processes of a replay share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Recorded time of the first event.
    pub first_ns: u64,
    /// When the first event happens again.
    pub start_ns: u64,
    /// Pauses are divided by this.
    pub speed: f64,
    /// After this recorded time everything stands still until told to go on.
    pub hold_ns: Option<u64>,
    /// When it went on.
    pub resumed_ns: Option<u64>,
}

impl Timeline {
    /// When what was recorded at `recorded_ns` is due; `None` while it stands still before that.
    pub fn due_ns(&self, recorded_ns: u64) -> Option<u64> {
        match self.hold_ns {
            Some(hold_ns) if recorded_ns > hold_ns => {
                self.resumed_ns.map(|resumed_ns| resumed_ns + self.scaled(recorded_ns - hold_ns))
            }
            _ if recorded_ns < self.first_ns => {
                Some(self.start_ns.saturating_sub(self.scaled(self.first_ns - recorded_ns)))
            }
            _ => Some(self.start_ns + self.scaled(recorded_ns - self.first_ns)),
        }
    }

    /// What is due at `now_ns`: the recorded time that has been reached.
    pub fn recorded_ns(&self, now_ns: u64) -> u64 {
        let since = |then_ns: u64| (now_ns.saturating_sub(then_ns) as f64 * self.speed) as u64;
        match (self.hold_ns, self.resumed_ns) {
            (Some(hold_ns), Some(resumed_ns)) if now_ns >= resumed_ns => hold_ns + since(resumed_ns),
            (Some(hold_ns), _) => hold_ns.min(self.first_ns + since(self.start_ns)),
            (None, _) => self.first_ns + since(self.start_ns),
        }
    }

    fn scaled(&self, recorded_ns: u64) -> u64 {
        (recorded_ns as f64 / self.speed) as u64
    }
}

/// CLOCK_MONOTONIC, nanoseconds.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds.
pub fn wall_offset_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime)) - monotonic_ns()
}

/// Returns at the given time of CLOCK_MONOTONIC, within microseconds on an idle machine; at once if that is past.
pub(super) fn sleep_until_ns(due_ns: u64) {
    let now_ns = monotonic_ns();
    if due_ns > now_ns + SPIN_NS {
        let wake = Duration::from_nanos(due_ns - SPIN_NS);
        let wake = Timespec { tv_sec: wake.as_secs() as i64, tv_nsec: i64::from(wake.subsec_nanos()) };
        // Interrupted sleeps are finished by the loop below.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &wake);
    }
    while monotonic_ns() < due_ns {
        std::hint::spin_loop();
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Timeline = Timeline { first_ns: 1000, start_ns: 50, speed: 2.0, hold_ns: None, resumed_ns: None };

    #[test]
    fn pauses_are_divided_by_the_speed() {
        assert_eq!(PLAIN.due_ns(1000), Some(50));
        assert_eq!(PLAIN.due_ns(1100), Some(100));
        assert_eq!(PLAIN.due_ns(980), Some(40));
    }

    #[test]
    fn what_comes_after_a_hold_waits_for_its_end() {
        let held = Timeline { hold_ns: Some(1100), ..PLAIN };
        assert_eq!(held.due_ns(1100), Some(100));
        assert_eq!(held.due_ns(1101), None);
        let resumed = Timeline { resumed_ns: Some(900), ..held };
        assert_eq!(resumed.due_ns(1100), Some(100));
        assert_eq!(resumed.due_ns(1200), Some(950));
        assert_eq!([40, 75, 120, 800, 950].map(|now_ns| resumed.recorded_ns(now_ns)), [1000, 1050, 1100, 1100, 1200]);
    }
}
