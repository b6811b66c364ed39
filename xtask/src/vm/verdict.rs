//! Whether a replay in the guest went as it must, from what the guest said on its console (see `init.sh`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::boot::STORM_CALLS;

/// Calls in the recording, each of which has a name on the wire.
const CALLS: u64 = 143;
/// Spans of kubelet and of the runtime that belong to one of them.
const JOINED_SPANS: u64 = 263;

/// Whether the guest came as far as to its own work.
pub(super) fn has_booted(console: &str) -> bool {
    lines(console, "vm-booted").next().is_some()
}

/// What a good replay told besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replay {
    /// Stands for the records of all calls, without times.
    pub(super) calls_digest: String,
    /// Verified instructions by program.
    pub(super) programs: BTreeMap<String, Option<u32>>,
}

/// What the replay in this mode told, or why it failed.
pub(super) fn of(mode: &str, console: &str) -> Result<Replay, String> {
    if !has_booted(console) {
        return Err(format!("the kernel did not come up: {}", last_line(console)));
    }
    let Some(ended) = lines(console, &format!("vm-ended {mode}")).next() else {
        return Err(format!("the guest ended before the replay did: {}", last_line(console)));
    };
    let (code, summary) = ended.split_once(' ').unwrap_or((ended, ""));
    let Ok(summary) = serde_json::from_str::<Value>(summary) else {
        let errors: Vec<_> = lines(console, &format!("vm-error {mode}")).collect();
        return Err(format!("spanlet-node ended with {code}: {}", errors.join(" / ")));
    };
    let expected = json!({
        "capture_mode": mode,
        "calls_seen": CALLS,
        "calls_named": CALLS,
        "spans_upstream_joined": JOINED_SPANS,
        "spans_upstream_duplicates": 0,
        "imbalances": [],
    });
    let expected = expected.as_object().expect("it is written as one");
    let differs = expected.iter().filter(|(key, value)| summary[*key] != **value);
    let differs: Vec<_> = differs.map(|(key, value)| format!("{key} is {}, not {value}", summary[key])).collect();
    if !differs.is_empty() {
        return Err(format!("{}; lost: {}", differs.join(", "), summary["events"]["lost"]));
    }
    if code != "0" {
        return Err(format!("spanlet-node ended with {code}"));
    }
    let calls_digest = summary["calls_digest"].as_str().ok_or("calls_digest is missing")?.to_owned();
    let programs = serde_json::from_value(summary["programs"].clone()).map_err(|error| format!("programs: {error}"))?;
    Ok(Replay { calls_digest, programs })
}

/// What a storm in this mode told, or why it failed. What is missing must be counted as lost, and nothing may be untrue.
pub(super) fn of_storm(mode: &str, console: &str) -> Result<String, String> {
    let Some(ended) = lines(console, &format!("vm-storm {mode}")).next() else {
        return Err(format!("the guest ended before the storm did: {}", last_line(console)));
    };
    let (code, report) = ended.split_once(' ').unwrap_or((ended, ""));
    // Behind the report may stand what was said on standard error.
    let report = serde_json::Deserializer::from_str(report).into_iter::<Value>().next().and_then(Result::ok);
    let Some(report) = report else { return Err(format!("spanlet-node ended with {ended}")) };
    let differences = &report["differences"];
    let sorts = ["incomplete", "missing", "invented", "repeated", "wrong"];
    let count = |sort| differences[sort].as_array().map_or(u64::MAX, |calls| calls.len() as u64);
    let found: Vec<_> = sorts.iter().map(|sort| (*sort, count(sort))).filter(|(_, count)| *count > 0).collect();
    let found: Vec<_> = found.iter().map(|(sort, count)| format!("{count} {sort}")).collect();
    let (made, exact, lost) = (&report["calls_made"], &differences["exact"], &report["events_lost"]);
    let told = match found.as_slice() {
        [] => format!("{exact} of {made} calls told exactly"),
        found => format!("{exact} of {made} calls told exactly, {}; {lost} events counted as lost", found.join(", ")),
    };
    if code != "0" || report["capture_mode"] != mode || made.as_u64().is_none_or(|made| made < STORM_CALLS) {
        let example = sorts.iter().find_map(|sort| differences[*sort].get(0)).unwrap_or(&Value::Null);
        return Err(format!("{told}; {}; gaps {}; {example}", report["imbalances"], report["gaps"]));
    }
    Ok(told)
}

/// Why what is written in ways that are not followed was not counted in this mode, or anything else was not told as it was.
pub(super) fn of_ways(mode: &str, console: &str) -> Result<(), String> {
    of_command(&format!("vm-ways {mode}"), console)
}

/// Why processes were not told of as they were.
pub(super) fn of_execs(console: &str) -> Result<(), String> {
    of_command("vm-execs", console)
}

fn of_command(line: &str, console: &str) -> Result<(), String> {
    match lines(console, line).next() {
        Some(ended) if ended.split_whitespace().next() == Some("0") => Ok(()),
        Some(ended) => Err(format!("spanlet-node ended with {ended}")),
        None => Err(format!("the guest ended before {line}: {}", last_line(console))),
    }
}

/// What stands behind `prefix` in the lines that begin with it.
fn lines<'a>(console: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> {
    console.lines().filter_map(move |line| line.trim().strip_prefix(prefix)?.strip_prefix(' '))
}

fn last_line(console: &str) -> &str {
    console.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\u{1b}[2JLinux\r\nvm-booted 6.1.0-56-cloud-amd64 #1 SMP\r\n\
        vm-ended kprobe 0 {\"capture_mode\":\"kprobe\",\"calls_seen\":143,\"calls_named\":143,\
        \"spans_upstream_joined\":263,\"spans_upstream_duplicates\":0,\"imbalances\":[],\"events\":{\"lost\":[]},\
        \"calls_digest\":\"0a52\",\"programs\":{\"kprobe_read\":706}}\r\n";

    fn why(mode: &str, console: &str) -> String {
        of(mode, console).expect_err("it is no success")
    }

    #[test]
    fn a_replay_that_saw_all_is_good() {
        assert!(has_booted(GOOD));
        let programs = BTreeMap::from([("kprobe_read".to_owned(), Some(706))]);
        assert_eq!(of("kprobe", GOOD), Ok(Replay { calls_digest: "0a52".to_owned(), programs }));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let table = [
            ("\"calls_seen\":143", "\"calls_seen\":142", "calls_seen is 142, not 143"),
            ("\"spans_upstream_joined\":263", "\"spans_upstream_joined\":0", "spans_upstream_joined is 0, not 263"),
            ("\"capture_mode\":\"kprobe\"", "\"capture_mode\":\"fentry\"", "capture_mode is \"fentry\""),
            ("\"imbalances\":[]", "\"imbalances\":[\"1 ≠ 2\"]", "1 ≠ 2"),
            ("\"lost\":[]", "\"gone\":[]", ""),
            ("kprobe 0 ", "kprobe 1 ", "ended with 1"),
        ];
        for (from, to, expected) in table {
            let console = GOOD.replace(from, to);
            match of("kprobe", &console) {
                Ok(_) => assert_eq!(expected, "", "{to}"),
                Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{to}: {why}"),
            }
        }
    }

    #[test]
    fn silence_is_a_failure() {
        assert!(why("fentry", GOOD).contains("ended before the replay did"));
        assert!(why("kprobe", "Kernel panic\r\n\r\n").contains("did not come up: Kernel panic"));
        assert!(why("kprobe", "").contains("said nothing"));
    }

    #[test]
    fn a_storm_is_exact_or_its_losses_are_counted() {
        let report = |changes: &[(&str, Value)]| {
            let mut report = json!({
                "capture_mode": "kprobe",
                "calls_made": STORM_CALLS + 9,
                "events_lost": 0,
                "gaps": {},
                "imbalances": [],
                "differences": {
                    "exact": STORM_CALLS + 9, "incomplete": [], "missing": [], "invented": [], "repeated": [], "wrong": [],
                },
            });
            for (path, value) in changes {
                *report.pointer_mut(path).expect("it is there") = value.clone();
            }
            report
        };
        let of = |code, report: Value| of_storm("kprobe", &format!("vm-storm kprobe {code} {report}a warning\n"));
        assert_eq!(of(0, report(&[])).expect("it is exact"), "309 of 309 calls told exactly");
        let missing = ("/differences/missing", json!(["the call"]));
        let counted = of(0, report(&[missing.clone(), ("/events_lost", json!(2))])).expect("the loss is counted");
        assert!(counted.ends_with("1 missing; 2 events counted as lost"), "{counted}");
        assert!(of(1, report(&[missing])).expect_err("nothing was lost").contains("the call"));
        of(0, report(&[("/capture_mode", json!("fentry"))])).expect_err("another mode");
        of(0, report(&[("/calls_made", json!(STORM_CALLS - 1))])).expect_err("not all calls were made");
        assert!(of_storm("kprobe", "vm-storm kprobe 1 Error: no probes\n").expect_err("code 1").contains("no probes"));
        of_storm("kprobe", GOOD).expect_err("there was no storm");
    }

    #[test]
    fn ways_and_execs_have_a_verdict_of_their_own() {
        let console = "vm-ended kprobe 0 {}\nvm-ways fentry 1 Error\nvm-ways kprobe 0\nvm-execs 0 a warning\n";
        assert_eq!(of_execs(console), Ok(()));
        assert_eq!(of_ways("kprobe", console), Ok(()));
        assert_eq!(of_ways("fentry", console), Err("spanlet-node ended with 1 Error".to_owned()));
        assert!(of_ways("tracepoint", console).is_err());
        assert!(of_execs("vm-execs 1 Error: no script\n").expect_err("code 1").contains("1 Error: no script"));
        assert!(of_execs(GOOD).is_err());
    }

    #[test]
    fn an_error_of_the_replay_is_passed_on() {
        let console =
            "vm-booted 6.1\nvm-ended fentry 1 \nvm-error fentry Error: no probes\nvm-error fentry   refused\n";
        assert_eq!(why("fentry", console), "spanlet-node ended with 1: Error: no probes /   refused");
    }
}
