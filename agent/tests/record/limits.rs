//! The recorder stays under its limit and counts what it lets go.

use spanlet::api::PodState;
use spanlet::config;
use spanlet::record::Recorder;
use spanlet_otlp::SpanKind;

use crate::evidence::{at, call, container, exec, pod, span, sync, tell};

const MAX_BYTES: usize = 256 << 10;

fn small() -> Recorder {
    Recorder::new(&config::Record { max_bytes: MAX_BYTES })
}

#[test]
fn the_oldest_pods_and_calls_make_room() {
    let mut recorder = small();
    let pods: Vec<_> = (0..1_000).map(|number| pod(&format!("pod-{number}"))).collect();
    for (number, pod) in (0..).zip(&pods) {
        let from_ms = number * 1_000;
        tell(&mut recorder, &call(pod, "RunPodSandbox", from_ms, from_ms + 100).finished());
        for piece in container(pod, &format!("{number:064}"), "app", from_ms + 200) {
            tell(&mut recorder, &piece);
        }
        assert!(recorder.stats().bytes <= MAX_BYTES, "{:?}", recorder.stats());
    }
    let stats = recorder.stats();
    assert!(stats.bytes > MAX_BYTES / 2, "a limit is there to be used: {stats:?}");
    assert_eq!(stats.pods as u64 + stats.evicted_pods, 1_000);
    assert_eq!(stats.calls as u64 + stats.evicted_calls, 3_000);
    assert!(recorder.pod("default", "pod-0", at(0)).is_none());
    assert!(recorder.pod("default", "pod-999", at(0)).is_some());
    assert_eq!(recorder.pods(at(0)).len(), stats.pods);
    let calls = recorder.calls(None, None);
    assert_eq!(calls.len(), stats.calls);
    assert_eq!(calls.last().unwrap().pod.as_ref().unwrap().name, "pod-999");
}

#[test]
fn probes_of_a_running_pod_take_no_room() {
    let mut recorder = small();
    let web = &pod("web");
    tell(&mut recorder, &call(web, "RunPodSandbox", 0, 100).finished());
    for piece in container(web, "c1", "app", 200) {
        tell(&mut recorder, &piece);
    }
    let mut after_a_day = 0;
    for probe in 1..20_000_u64 {
        tell(&mut recorder, &call(web, "ExecSync", 1_000 * probe, 1_000 * probe + 20).finished());
        if probe == 10_000 {
            after_a_day = recorder.stats().bytes;
        }
    }
    assert_eq!(recorder.stats().bytes, after_a_day);
    assert_eq!(recorder.stats().dropped_evidence, 0);
    let timeline = recorder.pod("default", "web", at(30_000_000)).unwrap();
    assert_eq!(timeline.entries.iter().filter(|entry| entry.name.ends_with("ExecSync")).count(), 0);
}

#[test]
fn a_pod_that_restarts_for_ever_keeps_its_start_and_its_end() {
    let mut recorder = Recorder::new(&config::Record::default());
    let web = &pod("web");
    tell(&mut recorder, &call(web, "RunPodSandbox", 0, 100).finished());
    for restart in 0..5_000_u64 {
        for piece in container(web, &format!("{restart:064}"), "app", 200 + restart * 20_000) {
            tell(&mut recorder, &piece);
        }
    }
    tell(&mut recorder, &call(web, "StopPodSandbox", 200_000_000, 200_000_100).finished());
    let stats = recorder.stats();
    assert!(stats.dropped_evidence > 7_000, "{stats:?}");
    // A quarter of the limit for recent calls, and what one pod may have.
    assert!(stats.bytes < 5 << 20, "{stats:?}");
    let timeline = recorder.pod("default", "web", at(300_000_000)).unwrap();
    assert_eq!((timeline.summary.state, timeline.summary.duration_seconds), (PodState::Terminating, 0.26));
    assert!(timeline.entries.last().unwrap().name.ends_with("StopPodSandbox"));
}

#[test]
fn spans_that_no_timeline_shows_are_let_go() {
    let mut recorder = Recorder::new(&config::Record::default());
    let web = &pod("web");
    tell(&mut recorder, &call(web, "RunPodSandbox", 0, 100).finished());
    for piece in container(web, "c1", "app", 200) {
        tell(&mut recorder, &piece);
    }
    // What containerd does inside of exec probes, and kubelet's syncs of a pod that runs well.
    for number in 0..20_000_u64 {
        let trace = u8::try_from(number % 250).unwrap();
        let times = (1_000 * number, 1_000 * number + 5);
        tell(
            &mut recorder,
            &span(web, ("task.Exec", SpanKind::Internal), trace, (u8::try_from(number / 250).unwrap(), 0xee), times),
        );
    }
    tell(&mut recorder, &sync(web, "syncTerminatingPod", 255, 30_000_000, 30_000_500, false));
    let stats = recorder.stats();
    assert_eq!(stats.dropped_evidence, 0, "{stats:?}");
    assert!(stats.bytes < 1 << 20, "{stats:?}");
    assert_eq!(recorder.pod("default", "web", at(40_000_000)).unwrap().summary.state, PodState::Terminating);
}

#[test]
fn processes_of_exec_probes_take_no_room_and_those_of_the_end_are_kept() {
    let mut recorder = Recorder::new(&config::Record::default());
    let web = &pod("web");
    tell(&mut recorder, &call(web, "RunPodSandbox", 0, 100).finished());
    for piece in container(web, "c1", "app", 200) {
        tell(&mut recorder, &piece);
    }
    let before = recorder.stats().bytes;
    for number in 1..5_000_u64 {
        let begin = 100_000 * number;
        tell(&mut recorder, &exec(web, &["runc", "exec", "c1"], (10, 1), begin, None));
        tell(&mut recorder, &exec(web, &["runc", "exec", "c1"], (10, 1), begin, Some(begin + 50)));
    }
    assert_eq!(recorder.stats().bytes, before);
    let end = 600_000_000;
    tell(&mut recorder, &call(web, "StopContainer", end, end + 90).container("c1", "app").started());
    tell(&mut recorder, &exec(web, &["runc", "kill", "c1"], (11, 1), end + 20, Some(end + 50)));
    tell(&mut recorder, &call(web, "StopContainer", end, end + 90).container("c1", "app").finished());
    let timeline = recorder.pod("default", "web", at(end + 100)).unwrap();
    assert_eq!(timeline.entries.last().unwrap().name, "exec runc kill");
}

#[test]
fn what_nobody_claims_is_let_go() {
    let mut recorder = small();
    let web = &pod("web");
    for number in 0..5_000_u64 {
        let trace = u8::try_from(number % 256).unwrap();
        tell(&mut recorder, &call(web, "ListContainers", number, number + 1).span(trace, 1).unowned().finished());
        assert!(recorder.stats().bytes <= MAX_BYTES);
    }
    assert_eq!(recorder.stats().pods, 0);
}
