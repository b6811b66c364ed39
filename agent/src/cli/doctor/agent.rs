//! The agent that runs on this node, if one does: its probes and its two ledgers.

use super::Finding;
use crate::api::{CaptureState, EventLedger, Status};

pub(super) fn findings(status: Option<&Status>) -> Vec<Finding> {
    let Some(status) = status else {
        return vec![Finding::note("agent", "none answers; `spanlet run` starts it, --admin asks another address")];
    };
    vec![capture(status), spans(status), events(&status.events)]
}

fn capture(status: &Status) -> Finding {
    let capture = &status.capture;
    match (capture.state, &capture.mode) {
        (CaptureState::Attached, Some(mode)) => Finding::ok("agent", format!("runs with {mode} probes")),
        (CaptureState::Starting, _) => Finding::note("agent", "runs, its probes are being attached"),
        _ => Finding::note("agent", format!("runs without probes: {}", capture.reasons.join("; "))),
    }
}

fn spans(status: &Status) -> Finding {
    let spans = &status.spans;
    let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
    let ledger = format!(
        "{} received + {} synthesized = {} exported + {} dropped + {} filtered + {} held",
        spans.received,
        spans.synthesized,
        spans.exported,
        sum(&spans.dropped),
        sum(&spans.filtered),
        spans.held
    );
    if spans.dropped.is_empty() {
        return Finding::ok("spans", ledger);
    }
    let reasons: Vec<String> = spans.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Finding::problem("spans", ledger, format!("dropped: {}; see the agent's log", reasons.join(", ")))
}

/// `seen = delivered + lost`, told for all kinds together.
fn events(events: &EventLedger) -> Finding {
    let lost: Vec<String> =
        events.lost.iter().map(|loss| format!("{} {} ({})", loss.count, loss.kind, loss.reason)).collect();
    let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
    let ledger = format!("{} seen = {} delivered", sum(&events.seen), sum(&events.delivered));
    if lost.is_empty() {
        return Finding::ok("kernel events", ledger);
    }
    Finding::note("kernel events", format!("{ledger} + lost: {}", lost.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::api::{CaptureStatus, EventLoss, SpanLedger};

    fn status() -> Status {
        let capture = CaptureStatus {
            state: CaptureState::Attached,
            mode: Some("kprobe".to_owned()),
            reasons: Vec::new(),
            programs: std::collections::BTreeMap::new(),
        };
        Status { capture, spans: SpanLedger::default(), events: EventLedger::default() }
    }

    #[test]
    fn losses_are_told_apart() {
        let states = |status: &Status| findings(Some(status)).iter().map(|finding| finding.state).collect::<Vec<_>>();
        assert_eq!(states(&status()), [State::Ok, State::Ok, State::Ok]);
        let mut bad = status();
        bad.spans.dropped.insert("rejected".to_owned(), 3);
        bad.events.lost.push(EventLoss { kind: "read".to_owned(), reason: "ring_full".to_owned(), count: 2 });
        assert_eq!(states(&bad), [State::Ok, State::Problem, State::Note]);
        assert!(findings(Some(&bad))[1].mend.as_ref().unwrap().contains("3 rejected"));
        assert_eq!(findings(None).len(), 1);
    }
}
