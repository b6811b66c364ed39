//! What came of a replay, and whether its ledger balances.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Serialize;
use serde_json::Value;
use spanlet::api::{EventLedger, SpanLedger, Status};

use super::control::SideReport;
use super::otlp::Sent;
use super::recording::Recording;
use crate::upstream::Received;

/// Totals of one replay.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub capture_mode: String,
    pub connections: u64,
    pub calls_seen: u64,
    pub calls_named: u64,
    pub calls_with_pod: u64,
    /// Stands for what was told of every call but times and the machine's own ids: the same recording gives the same number
    /// on every kernel and in every attach mode.
    pub calls_digest: String,
    /// Instructions that the verifier went through, by program; null where the kernel does not tell.
    pub programs: BTreeMap<String, Option<u32>>,
    pub spans_sent: u64,
    pub spans_acknowledged: u64,
    pub send_retries: u64,
    /// Spans that arrived upstream, those that came again counted again.
    pub spans_upstream: u64,
    pub spans_upstream_duplicates: u64,
    /// Of them, made by spanlet.
    pub spans_upstream_own: u64,
    /// Of them, joined to a call.
    pub spans_upstream_joined: u64,
    pub spans: SpanLedger,
    pub events: EventLedger,
    pub client: SideReport,
    pub server: SideReport,
    /// What does not add up, one sentence each.
    pub imbalances: Vec<String>,
}

impl Summary {
    pub(super) fn new(recording: &Recording, mode: &str, calls: &[Value], status: &Status) -> Self {
        let count = |has: fn(&Value) -> bool| calls.iter().filter(|call| has(call)).count() as u64;
        Self {
            capture_mode: mode.to_owned(),
            connections: recording.connections.len() as u64,
            calls_seen: calls.len() as u64,
            calls_named: count(|call| !call["method"].is_null()),
            calls_with_pod: count(|call| !call["pod"].is_null()),
            calls_digest: digest(calls),
            programs: status.capture.programs.clone(),
            spans_sent: 0,
            spans_acknowledged: 0,
            send_retries: 0,
            spans_upstream: 0,
            spans_upstream_duplicates: 0,
            spans_upstream_own: 0,
            spans_upstream_joined: 0,
            spans: status.spans.clone(),
            events: status.events.clone(),
            client: SideReport::default(),
            server: SideReport::default(),
            imbalances: Vec::new(),
        }
    }

    pub(super) fn add_spans(&mut self, sent: &Sent, received: &Received) {
        self.spans_sent = sent.spans;
        self.spans_acknowledged = sent.acknowledged_spans;
        self.send_retries = sent.retries;
        self.spans_upstream = received.span_count();
        self.spans_upstream_duplicates = received.duplicate_count();
        self.spans_upstream_own = received.own_span_count();
        self.spans_upstream_joined = received.joined_span_count();
        self.imbalances = self.find_imbalances();
    }

    pub fn balances(&self) -> bool {
        self.imbalances.is_empty()
    }

    fn find_imbalances(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut expect_equal = |what: &str, left: u64, right: u64| {
            if left != right {
                found.push(format!("{what}: {left} ≠ {right}"));
            }
        };
        let spans = &self.spans;
        let entered = spans.received + spans.synthesized;
        let dropped = sum(&spans.dropped) + sum(&spans.filtered);
        expect_equal(
            "received + synthesized = exported + dropped + filtered + held",
            entered,
            spans.exported + dropped + spans.held,
        );
        expect_equal("spans acknowledged = spans received", self.spans_acknowledged, spans.received);
        let unique = self.spans_upstream - self.spans_upstream_duplicates;
        expect_equal("spans entered - dropped - filtered = spans upstream", entered - dropped, unique);
        for (kind, seen, accounted) in events_by_kind(&self.events) {
            expect_equal(&format!("{kind} events seen = delivered + lost"), seen, accounted);
        }
        found
    }
}

/// What a call's record says that does not differ from run to run.
const STEADY_FIELDS: [&str; 8] =
    ["stream", "method", "naming", "traceparent", "status", "pod", "sandbox_id", "container_id"];

/// Of these only whether they are known.
const PHASES: [&str; 4] = ["request_wait_ns", "handling_ns", "response_send_ns", "response_wait_ns"];

fn digest(calls: &[Value]) -> String {
    let steady = |call: &Value| {
        let fields = STEADY_FIELDS.map(|field| call[field].to_string());
        format!("{} {:?}", fields.join(" "), PHASES.map(|phase| call[phase].is_null()))
    };
    let mut records: Vec<String> = calls.iter().map(steady).collect();
    records.sort_unstable();
    let mut hasher = DefaultHasher::new();
    records.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whether all that the agent took in has left it again, or is known to be lost.
pub(super) fn is_settled(status: &Status, acknowledged: u64) -> bool {
    let spans = &status.spans;
    let events_balance = events_by_kind(&status.events).all(|(_, seen, accounted)| seen == accounted);
    spans.held == 0 && spans.received >= acknowledged && events_balance
}

/// Kind of kernel event, how many were seen, how many delivered or lost.
fn events_by_kind(events: &EventLedger) -> impl Iterator<Item = (&str, u64, u64)> {
    events.seen.iter().map(|(kind, &seen)| {
        let delivered = events.delivered.get(kind).copied().unwrap_or(0);
        let lost = events.lost.iter().filter(|loss| loss.kind == *kind).map(|loss| loss.count).sum::<u64>();
        (kind.as_str(), seen, delivered + lost)
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spans, events, client, server, .. } = self;
        writeln!(f, "probes      {}", self.capture_mode)?;
        writeln!(
            f,
            "calls       {} seen, {} named, {} with their pod, on {} connections",
            self.calls_seen, self.calls_named, self.calls_with_pod, self.connections
        )?;
        writeln!(
            f,
            "spans       {} sent, {} acknowledged ({} retries); upstream {}: {} joined to a call, {} spanlet's own, {} duplicates",
            self.spans_sent,
            self.spans_acknowledged,
            self.send_retries,
            self.spans_upstream,
            self.spans_upstream_joined,
            self.spans_upstream_own,
            self.spans_upstream_duplicates
        )?;
        writeln!(
            f,
            "ledger      {} received + {} synthesized = {} exported + {} dropped + {} filtered + {} held",
            spans.received,
            spans.synthesized,
            spans.exported,
            sum(&spans.dropped),
            sum(&spans.filtered),
            spans.held
        )?;
        for (kind, seen) in &events.seen {
            let delivered = events.delivered.get(kind).copied().unwrap_or(0);
            let lost = events.lost.iter().filter(|loss| loss.kind == *kind);
            write!(f, "events      {kind}: {seen} seen = {delivered} delivered")?;
            lost.clone().try_for_each(|loss| write!(f, " + {} lost ({})", loss.count, loss.reason))?;
            writeln!(f)?;
        }
        for (name, side) in [("client", client), ("server", server)] {
            writeln!(
                f,
                "{name}      {} reads, {} writes; late by {} µs (median), {} µs (p99), {} µs (most)",
                side.reads, side.writes, side.late_p50_us, side.late_p99_us, side.late_max_us
            )?;
        }
        match self.imbalances.as_slice() {
            [] => write!(f, "the ledger balances"),
            imbalances => write!(f, "the ledger does not balance:\n  {}", imbalances.join("\n  ")),
        }
    }
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}
