//! The ledger of kernel events: `seen = delivered + lost{kind,reason}`.
//!
//! Kinds and reasons are labels of closed enums on the capture side; here they are their names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::api;

type Kind = &'static str;
type Reason = &'static str;

/// Counts of kernel events; clones share them.
#[derive(Debug, Clone, Default)]
pub struct EventLedger {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    seen: BTreeMap<Kind, u64>,
    delivered: BTreeMap<Kind, u64>,
    lost: BTreeMap<(Kind, Reason), u64>,
}

// === impl EventLedger ===

impl EventLedger {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ledger = Self::default();
        registry.register_collector(Box::new(ledger.clone()));
        ledger
    }

    /// Counts events that reached user space.
    pub fn delivered(&self, kind: Kind, count: u64) {
        *self.lock().delivered.entry(kind).or_default() += count;
    }

    /// Takes over the kernel side's own count of what it was to tell.
    pub fn seen_total(&self, kind: Kind, count: u64) {
        self.lock().seen.insert(kind, count);
    }

    /// Takes over the kernel side's own count of what it could not tell.
    pub fn lost_total(&self, kind: Kind, reason: Reason, count: u64) {
        self.lock().lost.insert((kind, reason), count);
    }

    pub fn snapshot(&self) -> api::EventLedger {
        let counts = self.lock();
        let named = |(kind, count): (&Kind, &u64)| (*count != 0).then(|| ((*kind).to_owned(), *count));
        let loss = |((kind, reason), count): (&(Kind, Reason), &u64)| api::EventLoss {
            kind: (*kind).to_owned(),
            reason: (*reason).to_owned(),
            count: *count,
        };
        api::EventLedger {
            seen: counts.seen.iter().filter_map(named).collect(),
            delivered: counts.delivered.iter().filter_map(named).collect(),
            lost: counts.lost.iter().map(loss).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for EventLedger {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = self.snapshot();
        let help = "Kernel events seen";
        let mut family = encoder.encode_descriptor("events", help, None, MetricType::Counter)?;
        for (kind, count) in &ledger.seen {
            let labels = [("kind", kind.as_str())];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Kernel events that did not reach user space";
        let mut family = encoder.encode_descriptor("events_lost", help, None, MetricType::Counter)?;
        for loss in &ledger.lost {
            let labels = [("kind", loss.kind.as_str()), ("reason", loss.reason.as_str())];
            ConstCounter::new(loss.count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn what_the_kernel_saw_is_told_beside_what_arrived_and_what_was_lost() {
        let mut registry = Registry::default();
        let ledger = EventLedger::register(&mut registry);
        ledger.seen_total("headers", 12);
        ledger.seen_total("read", 0);
        ledger.delivered("headers", 10);
        ledger.lost_total("headers", "ring_full", 1);
        ledger.lost_total("headers", "ring_full", 2);
        let snapshot = ledger.snapshot();
        assert_eq!(snapshot.seen, BTreeMap::from([("headers".to_owned(), 12)]));
        assert_eq!(snapshot.delivered, BTreeMap::from([("headers".to_owned(), 10)]));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in ["events_total{kind=\"headers\"} 12", "events_lost_total{kind=\"headers\",reason=\"ring_full\"} 2"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
