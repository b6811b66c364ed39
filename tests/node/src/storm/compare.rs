//! The agent's account of the calls against their client's.

use std::collections::HashMap;

use serde::Serialize;
use spanlet::api::CallEntry;

use super::fact::{Fact, Outcome};

/// The wall clock of the agent is a sample of each second, so its durations may be off by what the clock was corrected.
const CLOCK_SLACK_NS: u64 = 2_000_000;

/// gRPC's status of an error without a code.
const UNKNOWN: u8 = 2;

/// Where the two differ: a sentence for each call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Calls that were told as they were.
    pub exact: u64,
    /// Calls of which nothing contradicts the client, but something is not known.
    pub incomplete: Vec<String>,
    /// Calls that were made and not told.
    pub missing: Vec<String>,
    /// Calls that were told without a `traceparent`, so that nobody can say which they are.
    pub anonymous: u64,
    /// Calls that were told and not made.
    pub invented: Vec<String>,
    /// Calls that were told again.
    pub repeated: Vec<String>,
    /// Calls that were told otherwise than they were.
    pub wrong: Vec<String>,
}

/// Compares what was told with what was done.
pub fn compare(facts: &[Fact], calls: &[CallEntry]) -> Differences {
    let mut differences = Differences::default();
    let mut told: HashMap<&str, &CallEntry> = HashMap::new();
    for call in calls {
        match &call.traceparent {
            None => differences.anonymous += 1,
            Some(traceparent) => {
                if told.insert(traceparent, call).is_some() {
                    differences.repeated.push(format!("{call:?}"));
                }
            }
        }
    }
    for fact in facts {
        match told.remove(fact.traceparent.as_str()) {
            Some(call) => differences.judge(fact, call),
            None if fact.outcome == Outcome::Unsure => {}
            None => differences.missing.push(format!("{fact:?}")),
        }
    }
    differences.invented = told.into_values().map(|call| format!("{call:?}")).collect();
    differences
}

// === impl Differences ===

impl Differences {
    /// Every call was told once and as it was, and no other.
    pub fn is_none(&self) -> bool {
        self.is_honest() && self.missing.is_empty() && self.incomplete.is_empty() && self.anonymous == 0
    }

    /// Nothing that was told is untrue.
    pub fn is_honest(&self) -> bool {
        self.invented.is_empty() && self.repeated.is_empty() && self.wrong.is_empty()
    }

    fn judge(&mut self, fact: &Fact, call: &CallEntry) {
        let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
        if call.stream != fact.stream {
            wrong.push("stream");
        }
        let mut field = |name, told: Option<&str>, known: Option<&str>| match (told, known) {
            (told, known) if told == known => {}
            (None, _) => unknown.push(name),
            _ => wrong.push(name),
        };
        field("method", call.method.as_deref(), Some(&fact.method));
        let whole = fact.outcome.is_whole();
        // The id of a call that was cut short may not have been on the wire.
        if whole || call.sandbox_id.is_some() {
            field("sandbox", call.sandbox_id.as_deref(), fact.sandbox_id.as_deref());
        }
        if whole || call.container_id.is_some() {
            field("container", call.container_id.as_deref(), fact.container_id.as_deref());
        }
        let pod = call.pod.as_ref().map(|pod| pod.name.as_str());
        if whole || pod.is_some() {
            field("pod", pod, fact.pod.as_deref());
        }
        match (call.status, fact.outcome.status()) {
            (None, _) => unknown.push("status"),
            // Of a failure whose header names are lost only the shape of its frames is known.
            (Some(UNKNOWN), Some(1..)) if fact.outcome != Outcome::Answered(UNKNOWN) => unknown.push("status"),
            (Some(told), Some(known)) if told != known => wrong.push("status"),
            _ => {}
        }
        if whole {
            let phases = [call.request_wait_ns, call.handling_ns, call.response_send_ns, call.response_wait_ns];
            if phases.iter().any(Option::is_none) {
                unknown.push("phases");
            }
            if phases.into_iter().flatten().sum::<u64>() > fact.took_ns + CLOCK_SLACK_NS {
                wrong.push("longer than its client saw");
            }
        }
        if !wrong.is_empty() {
            self.wrong.push(format!("{}: {call:?} was {fact:?}", wrong.join(", ")));
        } else if !unknown.is_empty() {
            self.incomplete.push(format!("{}: {call:?} was {fact:?}", unknown.join(", ")));
        } else {
            self.exact += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(outcome: Outcome) -> Fact {
        Fact {
            traceparent: "00-a".to_owned(),
            method: "s/StopPodSandbox".to_owned(),
            stream: 3,
            outcome,
            sandbox_id: Some("id".to_owned()),
            container_id: None,
            pod: None,
            took_ns: 1_000,
        }
    }

    fn call() -> CallEntry {
        CallEntry {
            connection: 1,
            stream: 3,
            method: Some("s/StopPodSandbox".to_owned()),
            naming: "wire".to_owned(),
            traceparent: Some("00-a".to_owned()),
            status: Some(0),
            pod: None,
            sandbox_id: Some("id".to_owned()),
            container_id: None,
            request_wait_ns: Some(1),
            handling_ns: Some(2),
            response_send_ns: Some(3),
            response_wait_ns: Some(4),
            client_pid: None,
            server_pid: None,
            guess: None,
            over: true,
            lost_track: false,
        }
    }

    fn change(by: impl FnOnce(&mut CallEntry)) -> CallEntry {
        let mut call = call();
        by(&mut call);
        call
    }

    /// Exact, incomplete, missing, anonymous, invented, repeated, wrong.
    fn counts(facts: &[Fact], calls: &[CallEntry]) -> [usize; 7] {
        let Differences { exact, incomplete, missing, anonymous, invented, repeated, wrong } = compare(facts, calls);
        let listed = [incomplete, missing, invented, repeated, wrong].map(|list| list.len());
        [exact as usize, listed[0], listed[1], anonymous as usize, listed[2], listed[3], listed[4]]
    }

    #[test]
    fn every_difference_is_found() {
        let answered = [fact(Outcome::Answered(0))];
        let cases = [
            (call(), [1, 0, 0, 0, 0, 0, 0]),
            (change(|call| call.request_wait_ns = None), [0, 1, 0, 0, 0, 0, 0]),
            (change(|call| call.sandbox_id = None), [0, 1, 0, 0, 0, 0, 0]),
            (change(|call| call.method = None), [0, 1, 0, 0, 0, 0, 0]),
            (change(|call| call.traceparent = None), [0, 0, 1, 1, 0, 0, 0]),
            (change(|call| call.traceparent = Some("00-b".to_owned())), [0, 0, 1, 0, 1, 0, 0]),
            (change(|call| call.status = Some(1)), [0, 0, 0, 0, 0, 0, 1]),
            (change(|call| call.stream = 5), [0, 0, 0, 0, 0, 0, 1]),
            (change(|call| call.container_id = Some("other".to_owned())), [0, 0, 0, 0, 0, 0, 1]),
            (change(|call| call.handling_ns = Some(10_000_000)), [0, 0, 0, 0, 0, 0, 1]),
        ];
        for (call, expected) in cases {
            assert_eq!(counts(&answered, std::slice::from_ref(&call)), expected, "{call:?}");
        }
        assert_eq!(counts(&answered, &[call(), call()]), [1, 0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_call_that_broke_off_is_judged_by_what_its_client_knows() {
        let status = |status| change(|call| call.status = status);
        assert_eq!(counts(&[fact(Outcome::Unsure)], &[]), [0; 7]);
        assert_eq!(counts(&[fact(Outcome::Unsure)], &[status(Some(14))]), [1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counts(&[fact(Outcome::Abandoned)], &[status(Some(14))]), [1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counts(&[fact(Outcome::Abandoned)], &[status(None)]), [0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(counts(&[fact(Outcome::Abandoned)], &[]), [0, 0, 1, 0, 0, 0, 0]);
    }
}
