//! What came of a storm.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use spanlet::api::{EventLedger, Status};

use super::compare::Differences;
use super::fact::{Fact, Outcome};

/// Differences shown of each sort.
const SHOWN: usize = 5;

/// Totals of one storm.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub capture_mode: String,
    pub calls_made: u64,
    /// Calls by how they ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    pub differences: Differences,
    pub events: EventLedger,
    /// Kernel events that were lost, whatever the kind and reason.
    pub events_lost: u64,
    /// Why capture knows less than the kernel told, by cause.
    pub gaps: BTreeMap<String, u64>,
    /// Kinds of event for which `seen = delivered + lost` does not hold.
    pub imbalances: Vec<String>,
}

impl Report {
    pub(super) fn new(facts: &[Fact], differences: Differences, status: &Status, gaps: BTreeMap<String, u64>) -> Self {
        let mut outcomes = BTreeMap::new();
        for fact in facts {
            *outcomes.entry(label(fact.outcome)).or_default() += 1;
        }
        Self {
            capture_mode: status.capture.mode.clone().unwrap_or_default(),
            calls_made: facts.len() as u64,
            outcomes,
            differences,
            events: status.events.clone(),
            events_lost: status.events.lost.iter().map(|loss| loss.count).sum(),
            gaps,
            imbalances: imbalances(&status.events),
        }
    }

    /// Whether every call was told as it was. Unless `exact`, calls may be missing or told in part if events were lost, and
    /// that was counted.
    pub fn holds(&self, exact: bool) -> bool {
        let explained = self.events_lost > 0 && !exact;
        self.imbalances.is_empty() && (self.differences.is_none() || explained && self.differences.is_honest())
    }
}

/// The kinds of event whose books do not balance, a sentence each.
pub fn imbalances(events: &EventLedger) -> Vec<String> {
    let mut kinds: Vec<&String> = events.seen.keys().chain(events.delivered.keys()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut found = Vec::new();
    for kind in kinds {
        let count = |counts: &BTreeMap<String, u64>| counts.get(kind).copied().unwrap_or(0);
        let lost: u64 = events.lost.iter().filter(|loss| loss.kind == *kind).map(|loss| loss.count).sum();
        let (seen, delivered) = (count(&events.seen), count(&events.delivered));
        if seen != delivered + lost {
            found.push(format!("{kind}: {seen} seen ≠ {delivered} delivered + {lost} lost"));
        }
    }
    found
}

fn label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(0) => "succeeded",
        Outcome::Answered(_) => "failed",
        Outcome::Reset(_) => "reset",
        Outcome::Cancelled => "cancelled",
        Outcome::Expired => "expired",
        Outcome::Abandoned => "abandoned",
        Outcome::Unsure => "unsure",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "probes      {}", self.capture_mode)?;
        writeln!(f, "calls       {} made: {:?}", self.calls_made, self.outcomes)?;
        let Differences { exact, incomplete, missing, anonymous, invented, repeated, wrong } = &self.differences;
        writeln!(
            f,
            "told        {exact} exactly, {} in part, {} missing, {anonymous} anonymous, {} invented, {} repeated, {} wrong",
            incomplete.len(),
            missing.len(),
            invented.len(),
            repeated.len(),
            wrong.len()
        )?;
        for (sort, calls) in [
            ("in part", incomplete),
            ("missing", missing),
            ("invented", invented),
            ("repeated", repeated),
            ("wrong", wrong),
        ] {
            calls.iter().take(SHOWN).try_for_each(|call| writeln!(f, "  {sort}: {call}"))?;
        }
        for (kind, seen) in &self.events.seen {
            let delivered = self.events.delivered.get(kind).copied().unwrap_or(0);
            write!(f, "events      {kind}: {seen} seen = {delivered} delivered")?;
            let mut lost = self.events.lost.iter().filter(|loss| loss.kind == *kind);
            lost.try_for_each(|loss| write!(f, " + {} lost ({})", loss.count, loss.reason))?;
            writeln!(f)?;
        }
        writeln!(f, "gaps        {:?}", self.gaps)?;
        match self.imbalances.as_slice() {
            [] => write!(f, "the ledger balances"),
            imbalances => write!(f, "the ledger does not balance:\n  {}", imbalances.join("\n  ")),
        }
    }
}
