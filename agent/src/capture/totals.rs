//! The kernel side's counts over all attachments: programs that are attached again count from zero.

use std::collections::BTreeMap;

use spanlet_abi::counters::Program;
use spanlet_abi::event::{Kind, Reason};

use super::attach::Attached;
use crate::observe::Metrics;

/// What stands for programs that the kernel did not run because they were running: nobody knows which records that cost, so
/// each counts as one that was seen and lost.
const SKIPPED_KIND: &str = "program_run";

/// Counts of the programs that were detached, beside those of the programs that are attached.
#[derive(Debug, Default)]
pub struct Totals {
    before: Counts,
    cost_before_ns: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    seen: BTreeMap<&'static str, u64>,
    lost: BTreeMap<(&'static str, &'static str), u64>,
}

// === impl Totals ===

impl Totals {
    /// Brings the ledger of events up to what the programs have counted.
    pub fn tell(&self, attached: &Attached, metrics: &Metrics) {
        let all = Counts::of(attached).plus(&self.before);
        let events = metrics.events();
        for ((kind, reason), count) in all.lost {
            events.lost_total(kind, reason, count);
        }
        for (kind, count) in all.seen {
            events.seen_total(kind, count);
        }
    }

    /// Tells what the programs cost; returns what those that are attached have cost, in nanoseconds.
    pub fn tell_cost(&self, attached: &Attached, metrics: &Metrics) -> u64 {
        let cost_ns = cost_ns(attached);
        for (program, cost_ns) in &cost_ns {
            let before_ns = self.cost_before_ns.get(program).copied().unwrap_or(0);
            metrics.programs().ran(program, before_ns + cost_ns);
        }
        cost_ns.values().sum()
    }

    /// These programs are about to be detached.
    pub fn keep(&mut self, attached: &Attached) {
        self.before = Counts::of(attached).plus(&self.before);
        for (program, cost_ns) in cost_ns(attached) {
            *self.cost_before_ns.entry(program).or_default() += cost_ns;
        }
    }
}

/// What the attached programs have cost, by name, those that never ran left out.
fn cost_ns(attached: &Attached) -> BTreeMap<&'static str, u64> {
    let costs = Program::ALL.map(|program| (program.label(), attached.runs.cost(program)));
    costs.into_iter().filter(|(_, cost)| cost.runs > 0).map(|(name, cost)| (name, cost.estimated_ns())).collect()
}

// === impl Counts ===

impl Counts {
    fn of(attached: &Attached) -> Self {
        let mut counts = Self::default();
        for lost in attached.counters.lost() {
            counts.lost.insert((lost.kind.label(), lost.reason.label()), lost.count);
        }
        for kind in Kind::ALL {
            counts.seen.insert(kind.label(), attached.counters.seen(kind));
        }
        if attached.skipped > 0 {
            counts.seen.insert(SKIPPED_KIND, attached.skipped);
            counts.lost.insert((SKIPPED_KIND, Reason::Skipped.label()), attached.skipped);
        }
        counts
    }

    fn plus(mut self, other: &Self) -> Self {
        other.seen.iter().for_each(|(kind, count)| *self.seen.entry(kind).or_default() += count);
        other.lost.iter().for_each(|(loss, count)| *self.lost.entry(*loss).or_default() += count);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_stays_counted() {
        let counts = |seen| Counts {
            seen: BTreeMap::from([("read", seen)]),
            lost: BTreeMap::from([(("read", "ring_full"), 1)]),
        };
        let sum = counts(5).plus(&counts(2));
        assert_eq!((sum.seen["read"], sum.lost[&("read", "ring_full")]), (7, 2));
    }
}
