//! A recorded kubelet and containerd, played again past live probes: every call seen, every span joined, named and forwarded.

use std::collections::{HashMap, HashSet};

use spanlet::api::CallEntry;
use spanlet_e2e::expected::{self, ExpectedCall, Phases};
use spanlet_e2e::spans::{self, ServiceSpan, ids_of};
use spanlet_e2e::{Turn, recording};
use spanlet_node::replay::{Options, Replay};
use spanlet_node::upstream::{Keep, SpanId};

const CLIENT: i32 = 3; // SpanKind of trace.proto
const SERVER: i32 = 2;

/// What a run came to.
struct Run {
    calls: Vec<CallEntry>,
    spans: Vec<ServiceSpan>,
    expected: Vec<ExpectedCall>,
    recorded: Vec<ServiceSpan>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_node_is_seen_joined_and_forwarded_whole() {
    let Some(_turn) = Turn::take().await else { return };
    let prefix = recording("k134-c17");
    let mut replay = Replay::prepare(&Options::new(&prefix), Keep::Requests).await.unwrap();
    let played = replay.play(&mut |line| println!("{line}")).await.unwrap();
    let calls = replay.agent().unwrap().get("/api/v1/calls").await.unwrap();
    let own_spans_may_come = replay.agent().unwrap().status().await.unwrap().spans.synthesized;
    let received = spans::arrived(replay.upstream().received()).unwrap();
    let summary = replay.finish(&played, None).await.unwrap();
    println!("{summary}");
    assert!(summary.balances(), "{:?}", summary.imbalances);
    assert_eq!(summary.spans_upstream_duplicates, 0);

    let run = Run {
        calls,
        spans: received,
        expected: expected::calls(&prefix).unwrap(),
        recorded: spans::recorded(&prefix).unwrap(),
    };
    assert_eq!(run.spans.iter().filter(|span| span.service == "spanlet").count() as u64, own_spans_may_come);
    every_call_is_seen_and_named(&run);
    every_span_arrives_once(&run);
    every_cri_span_is_joined_and_no_other(&run);
    every_span_of_a_pod_names_it(&run);
    every_phase_is_as_recorded(&run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_traceparent_are_named_and_timed() {
    let Some(_turn) = Turn::take().await else { return };
    let prefix = recording("k134-c22-notrace");
    let mut replay = Replay::prepare(&Options { speed: 8.0, ..Options::new(&prefix) }, Keep::Ids).await.unwrap();
    let played = replay.play(&mut |line| println!("{line}")).await.unwrap();
    let calls: Vec<CallEntry> = replay.agent().unwrap().get("/api/v1/calls").await.unwrap();
    let summary = replay.finish(&played, None).await.unwrap();
    assert!(summary.balances(), "{:?}", summary.imbalances);

    let mut seen: Vec<_> = calls.iter().map(|call| (call.stream, call.method.clone(), call.status)).collect();
    let expected = expected::calls(&prefix).unwrap();
    let mut expected: Vec<_> = expected.into_iter().map(|call| (call.stream, Some(call.method), call.status)).collect();
    assert_same(&mut seen, &mut expected);
    for call in &calls {
        assert_eq!((call.naming.as_str(), &call.traceparent), ("wire", &None), "{call:?}");
        let phases = [call.request_wait_ns, call.handling_ns, call.response_send_ns, call.response_wait_ns];
        assert!(phases.iter().all(Option::is_some), "{call:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_span_survives_the_agents_end() {
    let Some(_turn) = Turn::take().await else { return };
    let options = Options { speed: 4.0, ..Options::new(&recording("k134-c17")) };
    let mut replay = Replay::prepare(&options, Keep::Requests).await.unwrap();
    let mut acknowledged = replay.acknowledged();
    let pid = rustix::process::Pid::from_raw(replay.agent().unwrap().pid().unwrap() as i32).unwrap();
    let killed = async {
        acknowledged.wait_for(|&spans| spans >= 100).await.unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    };
    let mut silent = |_: &str| {};
    tokio::select! {
        biased;
        () = killed => {}
        played = replay.play(&mut silent) => panic!("the replay was over before 100 spans were acknowledged: {played:?}"),
    }
    let exit = replay.agent().unwrap().stop().await.unwrap();
    assert!(exit.success(), "{exit}");
    let acknowledged = *replay.acknowledged().borrow();
    let received = replay.upstream().received();
    let arrived = received.span_count() - received.own_span_count();
    assert!(arrived >= acknowledged, "{acknowledged} acknowledged, {arrived} arrived");
    assert_eq!(received.duplicate_count(), 0);
}

fn every_call_is_seen_and_named(run: &Run) {
    assert_eq!(run.calls.len(), 143);
    let expected: HashMap<_, _> = run.expected.iter().map(|call| (call.traceparent.clone(), call)).collect();
    assert_eq!(expected.len(), 143);
    for call in &run.calls {
        let expected = expected.get(&call.traceparent).unwrap_or_else(|| panic!("nobody made {call:?}"));
        let told = (call.method.as_deref(), call.status, call.stream, call.naming.as_str());
        assert_eq!(told, (Some(expected.method.as_str()), expected.status, expected.stream, "wire"), "{call:?}");
    }
    let connections: HashSet<_> = run.calls.iter().map(|call| call.connection).collect();
    assert_eq!(connections.len(), 2);
}

fn every_span_arrives_once(run: &Run) {
    let mut sent: Vec<_> = run.recorded.iter().map(ServiceSpan::id).collect();
    let mut arrived: Vec<_> = others(&run.spans).map(ServiceSpan::id).collect();
    assert_same(&mut arrived, &mut sent);
}

fn every_cri_span_is_joined_and_no_other(run: &Run) {
    let by_ids: HashMap<SpanId, &CallEntry> =
        run.calls.iter().map(|call| (ids_of(call.traceparent.as_deref().unwrap()), call)).collect();
    let (mut clients, mut servers) = (0, 0);
    for span in others(&run.spans) {
        let call = match span.span.kind {
            CLIENT => by_ids.get(&span.id()),
            SERVER => span.parent().and_then(|parent| by_ids.get(&parent)),
            _ => None,
        };
        assert_eq!(span.has_prefix("spanlet.call."), call.is_some(), "{span:?}");
        let Some(call) = call else { continue };
        assert_eq!(call.method.as_deref(), Some(span.span.name.as_str()));
        for (key, value) in [
            ("spanlet.call.request_wait_ns", call.request_wait_ns),
            ("spanlet.call.handling_ns", call.handling_ns),
            ("spanlet.call.response_send_ns", call.response_send_ns),
            ("spanlet.call.response_wait_ns", call.response_wait_ns),
        ] {
            assert_eq!(span.int(key), value.map(|ns| ns as i64), "{key} of {span:?}");
        }
        if span.span.kind == CLIENT { clients += 1 } else { servers += 1 }
    }
    assert_eq!((clients, servers), (132, 131));
}

/// In the recording, the traces of `syncPod` and its like name their pod; and each call on a sandbox or container names it too.
fn every_span_of_a_pod_names_it(run: &Run) {
    let named = run.recorded.iter().filter_map(|span| Some((span.trace_id(), span.text("k8s.pod.name")?)));
    let by_trace: HashMap<_, _> = named.collect();
    let with_pod = run.calls.iter().filter_map(|call| Some((ids_of(call.traceparent.as_deref()?), call.pod.as_ref()?)));
    let by_call: HashMap<_, _> = with_pod.collect();
    let mut checked = 0;
    for span in others(&run.spans) {
        let of_call = by_call.get(&span.id()).or_else(|| by_call.get(&span.parent()?));
        let expected = by_trace.get(&span.trace_id()).copied().or_else(|| Some(of_call?.name.as_str()));
        let Some(expected) = expected else { continue };
        assert_eq!(span.text("k8s.pod.name"), Some(expected), "{span:?}");
        assert!(span.text("k8s.namespace.name").is_some() && span.text("k8s.pod.uid").is_some(), "{span:?}");
        checked += 1;
    }
    assert!(checked > 50, "only {checked} spans of pods");
}

/// Each phase by itself: the difference is what two sleeping processes make of a schedule, not what the probes make of a call.
fn every_phase_is_as_recorded(run: &Run) {
    let expected: HashMap<_, _> = run.expected.iter().map(|call| (call.traceparent.clone(), call.phases)).collect();
    type Measured = fn(&CallEntry) -> Option<u64>;
    type Recorded = fn(&Phases) -> i64;
    let phases: [(&str, Measured, Recorded); 4] = [
        ("request wait", |call| call.request_wait_ns, |phases| phases.request_wait_ns),
        ("handling", |call| call.handling_ns, |phases| phases.handling_ns),
        ("response send", |call| call.response_send_ns, |phases| phases.response_send_ns),
        ("response wait", |call| call.response_wait_ns, |phases| phases.response_wait_ns),
    ];
    for (name, measured, recorded) in phases {
        let mut errors_us: Vec<_> = run
            .calls
            .iter()
            .filter_map(|call| {
                let recorded = recorded(&expected[&call.traceparent].unwrap());
                let measured = measured(call).unwrap_or_else(|| panic!("no {name} of {call:?}"));
                // A read that the recorder stamped before its write cannot be done again.
                (recorded >= 0).then(|| (measured as i64 - recorded).abs() / 1000)
            })
            .collect();
        errors_us.sort_unstable();
        let quantile = |part: f64| errors_us[(errors_us.len() as f64 * part) as usize];
        println!(
            "{name}: off by {} us (median), {} us (p95), {} us (most)",
            quantile(0.5),
            quantile(0.95),
            quantile(0.9999)
        );
        assert!(errors_us.len() >= 135, "{name}: {} calls", errors_us.len());
        assert!(quantile(0.5) <= 100 && quantile(0.95) <= 2_000, "{name}: {errors_us:?}");
    }
}

fn others(spans: &[ServiceSpan]) -> impl Iterator<Item = &ServiceSpan> {
    spans.iter().filter(|span| span.service != "spanlet")
}

/// Both hold the same, whatever the order; a failure shows only what differs first.
fn assert_same<T: Ord + std::fmt::Debug>(seen: &mut [T], expected: &mut [T]) {
    seen.sort_unstable();
    expected.sort_unstable();
    let differs = seen.iter().zip(expected.iter()).find(|(seen, expected)| seen != expected);
    assert_eq!(differs, None, "seen and expected, of {} and {}", seen.len(), expected.len());
    assert_eq!(seen.len(), expected.len());
}
