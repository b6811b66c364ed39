//! The agent's metrics (prefix `spanlet_`), and the ledger of spans that is read from them.
//!
//! A stage counts an outcome exactly once, where it happens. `held` is not counted: it is what live reservations of
//! the [`Budget`] stand for, so a batch that is lost without a reason leaves the ledger unbalanced.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::calls::{CallMetrics, CallSample};
use super::events::EventLedger;
use super::labels::{
    DropReason, FilterRule, ForgetReason, IdentityResult, JoinResult, KubernetesResult, Label, Receiver, Refusal,
    SpanKind,
};
use super::programs::ProgramLedger;
use crate::api;
use crate::budget::Budget;

/// Every metric of the agent; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    budget: Budget,
    received: Counters<Receiver>,
    refused: Counters<Refusal>,
    synthesized: Counters<SpanKind>,
    exported: Counter,
    dropped: Counters<DropReason>,
    filtered: Counters<FilterRule>,
    held: Gauge,
    queue_bytes: Gauge,
    joins: Counters<JoinResult>,
    forgotten: Counters<ForgetReason>,
    identity: Counters<IdentityResult>,
    pods_known: Gauge,
    kubernetes: Counters<KubernetesResult>,
    calls: CallMetrics,
    events: EventLedger,
    programs: ProgramLedger,
}

// === impl Metrics ===

impl Metrics {
    pub fn new(budget: Budget) -> Self {
        let mut registry = Registry::with_prefix("spanlet");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running agent", build);
        let received = Counters::register(&mut registry, "spans_received", "Spans acknowledged to their senders");
        let refused = Counters::register(&mut registry, "requests_refused", "Requests not taken; still their senders'");
        let synthesized = Counters::register(&mut registry, "spans_synthesized", "Spans that the agent made itself");
        let exported = Counter::default();
        registry.register("spans_exported", "Spans that upstream accepted", exported.clone());
        let dropped = Counters::register(&mut registry, "spans_dropped", "Acknowledged spans that were lost");
        let filtered = Counters::register(&mut registry, "spans_filtered", "Spans left out on purpose");
        let held = Gauge::default();
        registry.register("spans_held", "Spans between receive and export", held.clone());
        let queue_bytes = Gauge::default();
        let help = "Encoded spans that wait for export or for upstream's answer";
        registry.register_with_unit("export_queue", help, Unit::Bytes, queue_bytes.clone());
        let joins = Counters::register(&mut registry, "joins", "Client and server spans looked up among the calls");
        let forgotten = Counters::register(&mut registry, "calls_forgotten", "Calls not kept for their spans");
        let help = "Spans and facts of which it was asked whose they are";
        let identity = Counters::register(&mut registry, "identity", help);
        let pods_known = Gauge::default();
        registry.register("pods_known", "Pods in the store of identity", pods_known.clone());
        let help = "Answers of the Kubernetes API, and what its limits cost";
        let kubernetes = Counters::register(&mut registry, "kubernetes", help);
        let calls = CallMetrics::register(&mut registry);
        let events = EventLedger::register(&mut registry);
        let programs = ProgramLedger::register(&mut registry);
        let shared = Shared {
            registry,
            budget,
            received,
            refused,
            synthesized,
            exported,
            dropped,
            filtered,
            held,
            queue_bytes,
            joins,
            forgotten,
            identity,
            pods_known,
            kubernetes,
            calls,
            events,
            programs,
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn received(&self, source: Receiver, spans: u64) {
        self.shared.received.add(source, spans);
    }

    /// Counts one request.
    pub fn refused(&self, reason: Refusal) {
        self.shared.refused.add(reason, 1);
    }

    pub fn synthesized(&self, kind: SpanKind, spans: u64) {
        self.shared.synthesized.add(kind, spans);
    }

    pub fn exported(&self, spans: u64) {
        self.shared.exported.inc_by(spans);
    }

    pub fn dropped(&self, reason: DropReason, spans: u64) {
        self.shared.dropped.add(reason, spans);
    }

    pub fn filtered(&self, rule: FilterRule, spans: u64) {
        self.shared.filtered.add(rule, spans);
    }

    pub fn joins(&self, result: JoinResult, spans: u64) {
        self.shared.joins.add(result, spans);
    }

    pub fn forgotten(&self, reason: ForgetReason, calls: u64) {
        self.shared.forgotten.add(reason, calls);
    }

    pub fn identity(&self, result: IdentityResult, count: u64) {
        self.shared.identity.add(result, count);
    }

    pub fn pods_known(&self, pods: usize) {
        self.shared.pods_known.set(as_gauge(pods as u64));
    }

    pub fn kubernetes(&self, result: KubernetesResult, count: u64) {
        self.shared.kubernetes.add(result, count);
    }

    pub fn call(&self, sample: &CallSample<'_>) {
        self.shared.calls.observe(sample);
    }

    /// The ledger of kernel events.
    pub fn events(&self) -> &EventLedger {
        &self.shared.events
    }

    /// What the kernel programs cost.
    pub fn programs(&self) -> &ProgramLedger {
        &self.shared.programs
    }

    /// The ledger of spans. Exact while nothing moves; otherwise each number is from a slightly different moment.
    pub fn spans(&self) -> api::SpanLedger {
        let shared = &self.shared;
        api::SpanLedger {
            // Outcomes first: what leaves between two reads then shows as still held rather than as missing.
            exported: shared.exported.get(),
            dropped: shared.dropped.by_label(),
            filtered: shared.filtered.by_label(),
            held: shared.budget.held_spans(),
            synthesized: shared.synthesized.sum(),
            received: shared.received.sum(),
            refused: shared.refused.sum(),
        }
    }

    /// The OpenMetrics text exposition.
    pub fn render(&self) -> String {
        let shared = &self.shared;
        shared.held.set(as_gauge(shared.budget.held_spans()));
        shared.queue_bytes.set(as_gauge(shared.budget.queued_bytes() as u64));
        let mut text = String::new();
        encode(&mut text, &shared.registry).expect("writing to a String does not fail");
        text
    }

    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One counter for each value of a closed label, all there from the start.
#[derive(Debug)]
struct Counters<L> {
    cells: Vec<(L, Counter)>,
}

impl<L: Label> Counters<L> {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let cell = |value: &L| (*value, family.get_or_create_owned(&[(L::NAME, value.label())]));
        let cells = L::ALL.iter().map(cell).collect();
        registry.register(name, help, family);
        Self { cells }
    }

    fn add(&self, value: L, count: u64) {
        self.cells[value.index()].1.inc_by(count);
    }

    fn sum(&self) -> u64 {
        self.cells.iter().map(|(_, counter)| counter.get()).sum()
    }

    /// Only what is not zero.
    fn by_label(&self) -> BTreeMap<String, u64> {
        let counts = self.cells.iter().map(|(value, counter)| (value.label().to_owned(), counter.get()));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Budget::new(1 << 20, 1 << 20))
    }

    #[test]
    fn ledger_balances_over_every_outcome() {
        let metrics = metrics();
        let mut held = metrics.budget().reserve(100).unwrap();
        held.hold_spans(5);
        metrics.received(Receiver::Grpc, 20);
        metrics.received(Receiver::Http, 3);
        metrics.synthesized(SpanKind::Exec, 2);
        metrics.exported(12);
        metrics.dropped(DropReason::Rejected, 4);
        metrics.filtered(FilterRule::Local, 4);
        let ledger = metrics.spans();
        assert!(ledger.balances(), "{ledger:?}");
        drop(held);
        assert!(!metrics.spans().balances(), "spans that vanish must show");
    }

    #[test]
    fn exposition_names_what_the_design_names() {
        let metrics = metrics();
        let mut held = metrics.budget().reserve(1_000).unwrap();
        held.hold_spans(7);
        held.mark_queued();
        for source in Receiver::ALL {
            metrics.received(*source, 1);
        }
        for reason in Refusal::ALL {
            metrics.refused(*reason);
        }
        for kind in SpanKind::ALL {
            metrics.synthesized(*kind, 1);
        }
        for reason in DropReason::ALL {
            metrics.dropped(*reason, 1);
        }
        for rule in FilterRule::ALL {
            metrics.filtered(*rule, 1);
        }
        for result in JoinResult::ALL {
            metrics.joins(*result, 1);
        }
        for reason in ForgetReason::ALL {
            metrics.forgotten(*reason, 1);
        }
        for result in IdentityResult::ALL {
            metrics.identity(*result, 1);
        }
        for result in KubernetesResult::ALL {
            metrics.kubernetes(*result, 1);
        }
        metrics.exported(9);
        metrics.pods_known(3);
        let text = metrics.render();
        for line in [
            "spanlet_spans_received_total{source=\"grpc\"} 1",
            "spanlet_requests_refused_total{reason=\"no_memory\"} 1",
            "spanlet_spans_synthesized_total{kind=\"exec\"} 1",
            "spanlet_spans_exported_total 9",
            "spanlet_spans_dropped_total{reason=\"shutdown\"} 1",
            "spanlet_spans_filtered_total{rule=\"local\"} 1",
            "spanlet_spans_held 7",
            "spanlet_export_queue_bytes 1256",
            "spanlet_joins_total{result=\"joined_client\"} 1",
            "spanlet_calls_forgotten_total{reason=\"table_full\"} 1",
            "spanlet_identity_total{result=\"owned\"} 1",
            "spanlet_pods_known 3",
            "spanlet_kubernetes_total{result=\"expired\"} 1",
            concat!("spanlet_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.lines().any(|line| line.starts_with("spanlet_spans") && line.ends_with(" 0")), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
