//! What the kernel programs cost, and what capture's user side gave up: counts that are taken over as totals.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

const NS_PER_SECOND: f64 = 1e9;

/// Totals by program and by cause; clones share them.
#[derive(Debug, Clone, Default)]
pub struct ProgramLedger {
    totals: Arc<Mutex<Totals>>,
}

#[derive(Debug, Default)]
struct Totals {
    cost_ns: BTreeMap<&'static str, u64>,
    gaps: BTreeMap<&'static str, u64>,
}

// === impl ProgramLedger ===

impl ProgramLedger {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ledger = Self::default();
        registry.register_collector(Box::new(ledger.clone()));
        ledger
    }

    /// How long a program has run in all, in nanoseconds, as it estimates itself.
    pub fn ran(&self, program: &'static str, total_ns: u64) {
        self.lock().cost_ns.insert(program, total_ns);
    }

    /// How often capture has met this cause of knowing less.
    pub fn gaps(&self, cause: &'static str, total: u64) {
        self.lock().gaps.insert(cause, total);
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for ProgramLedger {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.lock();
        let help = "Time that kernel programs took, estimated from one run in 64";
        let unit = prometheus_client::registry::Unit::Seconds;
        let mut family = encoder.encode_descriptor("probe_run", help, Some(&unit), MetricType::Counter)?;
        for (program, cost_ns) in &totals.cost_ns {
            let seconds = ConstCounter::new(*cost_ns as f64 / NS_PER_SECOND);
            seconds.encode(family.encode_family(&[("program", *program)])?)?;
        }
        let help = "Causes for which capture knows less of calls than the kernel told";
        let mut family = encoder.encode_descriptor("capture_gaps", help, None, MetricType::Counter)?;
        for (cause, count) in &totals.gaps {
            ConstCounter::new(*count).encode(family.encode_family(&[("cause", *cause)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn cost_is_told_in_seconds_and_gaps_by_cause() {
        let mut registry = Registry::default();
        let ledger = ProgramLedger::register(&mut registry);
        ledger.ran("sys_exit", 1_500_000_000);
        ledger.gaps("track_lost", 3);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in ["probe_run_seconds_total{program=\"sys_exit\"} 1.5", "capture_gaps_total{cause=\"track_lost\"} 3"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
