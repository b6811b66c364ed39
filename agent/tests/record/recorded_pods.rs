//! Pods that a real kubelet started on a real containerd.

use std::time::Duration;

use spanlet::api::{Entry, EntryKind, EntrySource, PodState, PodTimeline};
use spanlet::batch::Batch;
use spanlet::call::{Call, CallEvent};
use spanlet::config;
use spanlet::record::Recorder;

use crate::recording::{Owners, batches, calls};

const NAMESPACE: &str = "default";
const POD: &str = "spike1-spike-node";

/// Long after each recording.
const LATER_NS: u64 = 1_900_000_000_000_000_000;

/// What is left open in a recorded start is kubelet's own time between two calls.
const ACCOUNTED: f64 = 0.97;

#[test]
fn with_wire_and_spans_a_call_is_one_entry_with_both() {
    let timeline = recorded(&wire(), &spans());
    let summary = &timeline.summary;
    assert_eq!((summary.state, summary.uid.as_str()), (PodState::Gone, "e85e4dbecd453b8b6d83db1c63ff927d"));
    // From the start of syncPod to the end of StartContainer on the wire.
    assert_eq!(summary.started_at, "2026-11-22T03:28:27.707516744Z");
    assert_eq!(duration(&timeline), Duration::from_nanos(561_003_256));
    assert!(summary.accounted_ratio >= ACCOUNTED, "{}", summary.accounted_ratio);
    let slowest = summary.slowest.as_ref().unwrap();
    assert_eq!((slowest.name.as_str(), slowest.seconds), ("runtime.v1.RuntimeService/RunPodSandbox", 0.358_727));

    let start = of_start(&timeline);
    let calls: Vec<_> =
        start.iter().filter(|entry| entry.source == EntrySource::Wire && entry.kind == EntryKind::Cri).collect();
    let verbs: Vec<_> = calls.iter().map(|entry| verb(entry)).collect();
    let expected =
        ["RunPodSandbox", "PodSandboxStatus", "ImageStatus", "ImageStatus", "CreateContainer", "StartContainer"];
    assert_eq!(verbs, expected);
    for call in &calls {
        assert_eq!(call.depth, 1, "{}", call.name);
        for key in [
            "request_wait_ns",
            "handling_ns",
            "response_wait_ns",
            "client_overhead_ns",
            "client_span_id",
            "server_span_id",
        ] {
            assert!(call.attributes.contains_key(key), "{} of {}", key, call.name);
        }
    }
    let of_spans = start.iter().filter(|entry| entry.source == EntrySource::Otlp && entry.kind == EntryKind::Cri);
    let inner: Vec<_> = of_spans.map(|entry| (entry.name.as_str(), entry.depth)).collect();
    assert_eq!(inner, [("pkg.cri.server.ImageStatus", 2), ("pkg.cri.server.ImageStatus", 2)]);
}

#[test]
fn gaps_and_entries_make_up_the_whole_start() {
    let timeline = recorded(&wire(), &spans());
    let mut reached_ns = timeline.entries[0].start_unix_nano;
    let is_outer = |entry: &&&Entry| entry.depth <= 1 && entry.kind != EntryKind::Sync;
    let mut gaps = Vec::new();
    for entry in of_start(&timeline).iter().filter(is_outer) {
        assert_eq!(entry.start_unix_nano, reached_ns, "{}", entry.name);
        reached_ns = entry.end_unix_nano;
        if entry.kind == EntryKind::Gap {
            gaps.push(entry.name.as_str());
        }
    }
    let expected = [
        "gap between start of syncPod and RunPodSandbox",
        "gap between RunPodSandbox and PodSandboxStatus",
        "gap between PodSandboxStatus and ImageStatus",
        "gap between ImageStatus and ImageStatus",
        "gap between ImageStatus and CreateContainer",
        "gap between CreateContainer and StartContainer",
    ];
    assert_eq!(gaps, expected);
    let whole_ns = u64::try_from(duration(&timeline).as_nanos()).unwrap();
    assert_eq!(reached_ns, timeline.entries[0].start_unix_nano + whole_ns);
}

#[test]
fn the_end_of_the_pod_is_shown_after_its_start() {
    let timeline = recorded(&wire(), &spans());
    let end_ns = end_ns(&timeline);
    let later: Vec<_> = timeline.entries.iter().filter(|entry| entry.start_unix_nano >= end_ns).map(verb).collect();
    let expected = ["syncTerminatingPod", "StopContainer", "StopPodSandbox", "syncTerminatedPod", "RemoveContainer"];
    assert_eq!(later, expected);
}

#[test]
fn the_wire_alone_accounts_for_the_start() {
    let timeline = recorded(&wire(), &[]);
    assert_eq!(timeline.summary.state, PodState::Terminating, "only syncTerminatedPod tells that kubelet is done");
    assert!(timeline.summary.accounted_ratio >= ACCOUNTED);
    // Begins with RunPodSandbox: nothing tells of the sync before it.
    assert_eq!(duration(&timeline), Duration::from_micros(552_258));
    assert!(timeline.entries.iter().all(|entry| entry.source == EntrySource::Wire));
}

#[test]
fn spans_alone_account_for_the_start() {
    for (path, millis) in [("cri/cri-conn-k134-c17-otlp.binpb", 561), ("otlp/k134-c22-http.binpb", 357)] {
        let timeline = recorded(&[], &batches(path, &mut Owners::default()));
        assert_eq!(timeline.summary.state, PodState::Gone, "{path}");
        assert_eq!(duration(&timeline).as_millis(), millis, "{path}");
        assert!(timeline.summary.accounted_ratio >= ACCOUNTED, "{path}: {}", timeline.summary.accounted_ratio);
        let calls: Vec<_> =
            of_start(&timeline).into_iter().filter(|entry| entry.depth == 1 && entry.kind == EntryKind::Cri).collect();
        assert!(
            calls.iter().all(|call| call.source == EntrySource::Otlp && call.attributes.contains_key("server_span_id")),
            "{path}"
        );
    }
}

#[test]
fn spans_of_a_pod_that_no_one_named_when_they_came_find_it() {
    let path = "cri/cri-conn-k134-c17-otlp.binpb";
    let owned = recorded(&[], &batches(path, &mut Owners::default()));
    // kubelet exports a call before the sync that names its pod; here only the syncs have an owner.
    let mut late = batches(path, &mut Owners::default());
    for batch in &mut late {
        let names: Vec<_> = batch.request.spans().map(|span| span.name().starts_with("sync")).collect();
        for (owner, is_sync) in batch.owners.iter_mut().zip(names) {
            *owner = owner.take().filter(|_| is_sync);
        }
    }
    let found = recorded(&[], &late);
    assert_eq!(found.summary, owned.summary);
}

#[test]
fn what_containerd_does_inside_a_call_hangs_below_it() {
    let timeline = recorded(&[], &batches("otlp/k134-c22-http.binpb", &mut Owners::default()));
    let cri = || timeline.entries.iter().filter(|entry| entry.kind == EntryKind::Cri);
    let first = |name: &str| cri().find(|entry| entry.name.ends_with(name)).unwrap();
    let [sandbox, task, create] = ["RunPodSandbox", "container.NewTask", "Task/Create"].map(first);
    assert_eq!((sandbox.depth, task.depth, create.depth), (1, 2, 3));
    assert!(sandbox.start_unix_nano <= task.start_unix_nano && task.end_unix_nano <= sandbox.end_unix_nano);
    // A root of its own that lasts as long as the container: no part of any call.
    assert!(timeline.entries.iter().all(|entry| entry.name != "task.Wait"));
}

#[test]
fn two_pods_at_once_without_any_trace_are_told_apart() {
    let mut recorder = recorder();
    for call in calls("k134-c22-notrace", &mut Owners::default()) {
        recorder.call(&CallEvent::Finished(Box::new(call)));
    }
    let pods = recorder.pods(LATER_NS);
    assert_eq!(pods.len(), 2);
    for pod in pods {
        // Without traceparent nothing says whose ImageStatus calls are; kubelet's pauses around them join with them.
        assert!(pod.accounted_ratio > 0.94, "{}: {}", pod.name, pod.accounted_ratio);
        assert!((0.24..0.26).contains(&pod.duration_seconds), "{}: {}", pod.name, pod.duration_seconds);
    }
}

#[test]
fn calls_can_be_asked_for_by_method_and_time() {
    let mut recorder = recorder();
    let calls = wire();
    for call in &calls {
        recorder.call(&CallEvent::Finished(Box::new(call.clone())));
    }
    assert_eq!(recorder.calls(None, None).len(), calls.len());
    for method in ["RunPodSandbox", "runtime.v1.RuntimeService/RunPodSandbox"] {
        let [call] = &recorder.calls(Some(method), None)[..] else { panic!("one call of {method}") };
        assert_eq!((call.connection, call.stream, call.status), (1, 51, Some(0)));
        assert_eq!(call.pod.as_ref().unwrap().name, POD);
        assert_eq!(call.sandbox_id.as_deref().map(str::len), Some(64));
        let phases = [call.request_wait_ns, call.handling_ns, call.response_send_ns, call.response_wait_ns];
        assert_eq!(phases.into_iter().sum::<Option<u64>>(), Some(355_441_000));
    }
    assert!(recorder.calls(Some("PodSandbox"), None).is_empty());
    let stop_ns =
        calls.iter().find(|call| call.method.as_deref().unwrap().ends_with("/StopContainer")).unwrap().ended_ns;
    let since = recorder.calls(None, Some(stop_ns));
    assert_eq!(since.len(), calls.iter().filter(|call| call.ended_ns >= stop_ns).count());
    assert!(since.len() < calls.len());
}

fn wire() -> Vec<Call> {
    calls("k134-c17", &mut Owners::default())
}

fn spans() -> Vec<Batch> {
    let mut owners = Owners::default();
    calls("k134-c17", &mut owners);
    batches("cri/cri-conn-k134-c17-otlp.binpb", &mut owners)
}

fn recorder() -> Recorder {
    Recorder::new(&config::Record::default())
}

fn recorded(calls: &[Call], batches: &[Batch]) -> PodTimeline {
    let mut recorder = recorder();
    for call in calls {
        recorder.call(&CallEvent::Finished(Box::new(call.clone())));
    }
    for batch in batches {
        recorder.batch(batch);
    }
    recorder.pod(NAMESPACE, POD, LATER_NS).expect("the recorded pod")
}

fn duration(timeline: &PodTimeline) -> Duration {
    Duration::from_secs_f64(timeline.summary.duration_seconds)
}

fn end_ns(timeline: &PodTimeline) -> u64 {
    timeline.entries[0].start_unix_nano + u64::try_from(duration(timeline).as_nanos()).unwrap()
}

fn of_start(timeline: &PodTimeline) -> Vec<&Entry> {
    let end_ns = end_ns(timeline);
    timeline.entries.iter().filter(|entry| entry.start_unix_nano < end_ns).collect()
}

fn verb(entry: &Entry) -> &str {
    entry.name.rsplit('/').next().unwrap_or_default()
}
