//! Pauses that another pod's image pull explains.

use spanlet::api::{EntryKind, PodTimeline};

use crate::evidence::{Evidence, call, container, drawn, pod, timeline};

/// `web` waits from 110 ms to 8 s before its own pull.
fn web() -> Vec<Evidence> {
    let web = &pod("web");
    let mut evidence = vec![
        call(web, "RunPodSandbox", 0, 100).finished(),
        call(web, "ImageStatus", 100, 110).finished(),
        call(web, "PullImage", 8_000, 9_000).image("web:1").finished(),
    ];
    evidence.extend(container(web, "c1", "app", 9_000));
    evidence
}

fn with(others: impl IntoIterator<Item = Evidence>) -> PodTimeline {
    let evidence: Vec<_> = web().into_iter().chain(others).collect();
    timeline(&evidence, &pod("web"), 60_000).unwrap()
}

fn pauses(timeline: &PodTimeline) -> Vec<String> {
    drawn(timeline).into_iter().filter(|line| line.contains("gap") || line.contains("wait")).collect()
}

#[test]
fn the_pulls_that_came_first_are_named() {
    let big = call(&pod("big"), "PullImage", 50, 5_000).image("big:1").finished();
    let small = call(&pod("small"), "PullImage", 5_010, 7_990).image("small:1").finished();
    let timeline = with([big, small]);
    assert_eq!(
        pauses(&timeline),
        [
            "wait for image pull of default/big wait 110-5000",
            "gap between ImageStatus and PullImage gap 5000-5010",
            "wait for image pull of default/small wait 5010-7990",
            "gap between ImageStatus and PullImage gap 7990-8000",
        ]
    );
    let wait = timeline.entries.iter().find(|entry| entry.kind == EntryKind::Wait).unwrap();
    assert_eq!(wait.attributes["pod"], "default/big");
    assert_eq!(wait.attributes["image"], "big:1");
    assert_eq!(wait.attributes["evidence"], "another image pull in the same serial queue");
    assert!(timeline.summary.accounted_ratio > 0.99, "{}", timeline.summary.accounted_ratio);
    assert_eq!(timeline.summary.slowest.unwrap().name, "wait for image pull of default/big");
}

#[test]
fn a_pull_of_unknown_owner_is_evidence_too() {
    let unknown = call(&pod("big"), "PullImage", 50, 7_990).image("big:1").unowned().finished();
    assert_eq!(pauses(&with([unknown]))[0], "wait for image pull of an unknown pod wait 110-7990");
}

#[test]
fn without_evidence_a_pause_is_a_gap() {
    let gap = ["gap between ImageStatus and PullImage gap 110-8000"];
    let earlier = call(&pod("big"), "PullImage", 0, 100).finished();
    let later = call(&pod("big"), "PullImage", 9_000, 12_000).finished();
    assert_eq!(pauses(&with([])), gap);
    assert_eq!(pauses(&with([earlier, later])), gap, "before and after the pause");
    let other_client = call(&pod("big"), "PullImage", 50, 7_990).connection(3).finished();
    assert_eq!(pauses(&with([other_client])), gap, "crictl's pulls do not hold up kubelet's");
    let side_by_side = [("a", 50, 5_000), ("b", 4_000, 7_990)];
    let pulls = side_by_side.map(|(name, from_ms, to_ms)| call(&pod(name), "PullImage", from_ms, to_ms).finished());
    assert_eq!(pauses(&with(pulls)), gap, "kubelet pulls in parallel");
}

#[test]
fn only_the_pause_before_the_own_pull_is_explained() {
    let (web, big) = (&pod("web"), &pod("big"));
    let mut evidence =
        vec![call(web, "RunPodSandbox", 0, 100).finished(), call(big, "PullImage", 100, 5_000).finished()];
    evidence.extend(container(web, "c1", "app", 5_000));
    let timeline = timeline(&evidence, web, 60_000).unwrap();
    assert_eq!(pauses(&timeline), ["gap between RunPodSandbox and CreateContainer gap 100-5000"]);
}
