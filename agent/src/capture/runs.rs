//! What the programs cost, from the times that they take of themselves.

use std::io;

use aya::maps::Map;
use spanlet_abi::counters::{Program, Runs};

use super::mapping::Mapping;

/// A mapping of every program's and CPU's counts.
#[derive(Debug)]
pub struct RunsView {
    runs: Mapping<Runs>,
}

/// What one program did on all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    pub runs: u64,
    /// Runs that were timed, and how long they took together.
    pub timed: u64,
    pub timed_ns: u64,
}

impl RunsView {
    /// Maps the array's pages: a slot for each program on each of `cpus` CPUs.
    pub(super) fn of(map: &Map, cpus: u32) -> io::Result<Self> {
        Ok(Self { runs: Mapping::of(map, Program::COUNT * cpus as usize)? })
    }

    /// What `program` has cost since it was attached.
    pub fn cost(&self, program: Program) -> Cost {
        let cpus = self.runs.count() / Program::COUNT;
        let slots = (0..cpus).map(|cpu| self.runs.element(program as usize * cpus + cpu));
        slots.fold(Cost::default(), |sum, slot| {
            // SAFETY: inside the mapping, aligned; the programs write to it at any time.
            let (runs, timed, timed_ns) = unsafe {
                (
                    (&raw const (*slot).runs).read_volatile(),
                    (&raw const (*slot).timed).read_volatile(),
                    (&raw const (*slot).timed_ns).read_volatile(),
                )
            };
            Cost { runs: sum.runs + runs, timed: sum.timed + timed, timed_ns: sum.timed_ns + timed_ns }
        })
    }
}

impl Cost {
    /// All runs, taken to be as long as the timed ones; 0 until one was timed.
    pub fn estimated_ns(&self) -> u64 {
        if self.timed == 0 {
            return 0;
        }
        let scaled = u128::from(self.timed_ns) * u128::from(self.runs) / u128::from(self.timed);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_were_not_timed_count_like_those_that_were() {
        let cost = |runs, timed, timed_ns| Cost { runs, timed, timed_ns }.estimated_ns();
        assert_eq!(cost(63, 0, 0), 0);
        assert_eq!(cost(640, 10, 5_000), 320_000);
        assert_eq!(cost(u64::MAX, 1, u64::MAX), u64::MAX);
    }
}
