//! Where a start begins and ends, and how it stands.

use serde_json::json;
use spanlet::api::PodState;
use spanlet::call::SocketKind;
use spanlet_otlp::SpanKind;

use crate::evidence::{Evidence, call, container, drawn, exec, pod, span, sync, timeline};

/// State, milliseconds taken and entries of the pod `web` at `now_ms`.
fn start(evidence: &[Evidence], now_ms: u64) -> (PodState, u64) {
    let timeline = timeline(evidence, &pod("web"), now_ms).expect("a start was seen");
    (timeline.summary.state, (timeline.summary.duration_seconds * 1e3).round() as u64)
}

fn sandbox() -> Evidence {
    call(&pod("web"), "RunPodSandbox", 0, 100).finished()
}

#[test]
fn the_first_set_of_containers_ends_the_start() {
    let web = &pod("web");
    let first = || [sandbox()].into_iter().chain(container(web, "c1", "app", 200));
    let hours = 3_600_000;
    let cases: [(&str, Vec<Evidence>, u64); 9] = [
        ("one container", vec![], 260),
        ("a second one", container(web, "c2", "proxy", 300).to_vec(), 360),
        ("after a long init container", container(web, "c2", "proxy", 300_000).to_vec(), 300_060),
        ("a restart is none of it", container(web, "c2", "app", 5_000).to_vec(), 260),
        (
            "nor is what follows a restart",
            [container(web, "c2", "app", 5_000), container(web, "c3", "debug", 6_000)].concat(),
            260,
        ),
        ("a debug container hours later is none of it", container(web, "c2", "debug", 2 * hours).to_vec(), 260),
        ("no name, soon", container(web, "c2", "", 5_000).to_vec(), 5_060),
        ("no name, after kubelet's first back-off", container(web, "c2", "", 12_000).to_vec(), 260),
        (
            "a new sandbox is a restart",
            [vec![call(web, "RunPodSandbox", 900, 950).finished()], container(web, "c2", "other", 960).to_vec()]
                .concat(),
            260,
        ),
    ];
    for (what, later, end_ms) in cases {
        let evidence: Vec<_> = first().chain(later).collect();
        assert_eq!(start(&evidence, 9 * hours), (PodState::Started, end_ms), "{what}");
    }
}

#[test]
fn a_failed_try_is_part_of_the_start() {
    let web = &pod("web");
    let mut evidence = vec![
        call(web, "RunPodSandbox", 0, 100).status(2).finished(),
        call(web, "RunPodSandbox", 5_000, 5_100).finished(),
        call(web, "CreateContainer", 5_200, 5_210).container("", "app").status(2).finished(),
    ];
    assert_eq!(start(&evidence, 20_000), (PodState::Failed, 5_210));
    evidence.extend(container(web, "c2", "app", 19_000));
    assert_eq!(start(&evidence, 60_000), (PodState::Started, 19_060));
}

#[test]
fn a_pod_is_starting_until_its_containers_run() {
    let web = &pod("web");
    let pull = call(web, "PullImage", 150, 9_000).image("docker.io/library/web:1");
    let [create, start_container] = container(web, "c1", "app", 9_010);
    let steps = [
        (vec![call(web, "RunPodSandbox", 0, 100).started()], PodState::Starting, 1_000),
        (vec![sandbox()], PodState::Starting, 1_000),
        (vec![pull.clone().started()], PodState::Starting, 1_000),
        (vec![pull.finished(), create], PodState::Starting, 1_000),
        (vec![start_container], PodState::Started, 9_070),
    ];
    let mut evidence = Vec::new();
    for (more, state, took_ms) in steps {
        evidence.extend(more);
        assert_eq!(start(&evidence, 1_000), (state, took_ms), "{evidence:?}");
    }
}

#[test]
fn what_runs_now_is_said_to_run() {
    let web = &pod("web");
    let evidence = [sandbox(), call(web, "PullImage", 150, 0).started()];
    let timeline = timeline(&evidence, web, 3_000).unwrap();
    assert_eq!(
        drawn(&timeline),
        ["RunPodSandbox cri 0-100", "gap between RunPodSandbox and PullImage gap 100-150", "PullImage cri 150-3000",]
    );
    let running: Vec<_> = timeline.entries.iter().map(|entry| entry.attributes.contains_key("running")).collect();
    assert_eq!(running, [false, false, true]);
}

#[test]
fn nothing_running_is_a_gap_that_runs() {
    let timeline = timeline(&[sandbox()], &pod("web"), 3_000).unwrap();
    assert_eq!(drawn(&timeline), ["RunPodSandbox cri 0-100", "gap after RunPodSandbox gap 100-3000"]);
    assert_eq!(timeline.entries[1].attributes["running"], true);
    assert!((timeline.summary.accounted_ratio - 100.0 / 3_000.0).abs() < 1e-9);
}

#[test]
fn stopping_ends_it() {
    let web = &pod("web");
    let mut evidence = vec![sandbox()];
    evidence.extend(container(web, "c1", "app", 200));
    evidence.push(call(web, "StopContainer", 5_000, 5_500).container("c1", "app").finished());
    assert_eq!(start(&evidence, 6_000).0, PodState::Started, "it may be a failed liveness probe");
    evidence.push(call(web, "StopPodSandbox", 5_600, 5_700).finished());
    assert_eq!(start(&evidence, 6_000), (PodState::Terminating, 260));
    evidence.push(call(web, "RemovePodSandbox", 9_000, 9_100).finished());
    assert_eq!(start(&evidence, 10_000), (PodState::Gone, 260));
}

#[test]
fn a_sync_that_failed_begins_the_start_and_an_idle_one_does_not() {
    let web = &pod("web");
    let steps = || {
        [call(web, "RunPodSandbox", 60_000, 60_100).span(9, 1).finished()]
            .into_iter()
            .chain(container(web, "c1", "app", 60_200))
    };
    let with = |sync: Evidence| steps().chain([sync]).collect::<Vec<_>>();
    assert_eq!(start(&with(sync(web, "syncPod", 7, 0, 5, false)), 70_000).1, 260, "resync of a running pod");
    assert_eq!(start(&with(sync(web, "syncPod", 7, 0, 5, true)), 70_000).1, 60_260, "volumes were not there");
    assert_eq!(
        start(&with(sync(web, "syncPod", 9, 59_000, 61_000, false)), 70_000).1,
        1_260,
        "the sync that ran the sandbox"
    );
    assert_eq!(start(&[sync(web, "syncPod", 7, 0, 5, true)], 70_000), (PodState::Starting, 70_000));
    assert!(timeline(&[sync(web, "syncPod", 7, 0, 5, false)], web, 70_000).is_none(), "nothing started here");
}

#[test]
fn a_pod_that_was_there_before_the_agent_has_no_start() {
    let web = &pod("web");
    let polls = (0..200).map(|poll| call(web, "ContainerStatus", poll * 1_000, poll * 1_000 + 1).finished());
    assert!(timeline(&polls.collect::<Vec<_>>(), web, 300_000).is_none());
}

#[test]
fn volumes_claims_and_devices_come_first() {
    let web = &pod("web");
    let mut evidence = vec![
        call(web, "Allocate", 0, 50).on(SocketKind::DevicePlugin, "v1beta1.DevicePlugin/Allocate").finished(),
        call(web, "Publish", 50, 150).on(SocketKind::Csi, "csi.v1.Node/NodePublishVolume").finished(),
        call(web, "Prepare", 150, 250)
            .on(SocketKind::Dra, "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources")
            .finished(),
        call(web, "RunPodSandbox", 250, 400).finished(),
    ];
    evidence.extend(container(web, "c1", "app", 400));
    let timeline = timeline(&evidence, web, 10_000).unwrap();
    assert_eq!(
        drawn(&timeline),
        [
            "Allocate device 0-50",
            "NodePublishVolume csi 50-150",
            "NodePrepareResources dra 150-250",
            "RunPodSandbox cri 250-400",
            "CreateContainer cri 400-410",
            "StartContainer cri 410-460",
        ]
    );
    assert!((timeline.summary.accounted_ratio - 1.0).abs() < 1e-12);
}

#[test]
fn execs_hang_below_the_call_that_caused_them_and_no_longer_than_it() {
    let web = &pod("web");
    let mut evidence = vec![
        sandbox(),
        exec(web, &["/usr/bin/containerd-shim-runc-v2", "-id", "s", "start"], (10, 1), 20, Some(40)),
        exec(web, &["/usr/bin/containerd-shim-runc-v2", "-id", "s"], (11, 10), 30, None),
        exec(web, &["/usr/bin/runc", "create", "s"], (12, 11), 50, Some(90)),
        exec(web, &["/usr/bin/runc", "state", "s"], (13, 1), 150, Some(160)),
    ];
    evidence.extend(container(web, "c1", "app", 200));
    let timeline = timeline(&evidence, web, 10_000).unwrap();
    assert_eq!(
        drawn(&timeline),
        [
            "RunPodSandbox cri 0-100",
            "  exec containerd-shim-runc-v2 start exec 20-40",
            "    exec containerd-shim-runc-v2 exec 30-100",
            "      exec runc create exec 50-90",
            "gap between RunPodSandbox and CreateContainer gap 100-200",
            "CreateContainer cri 200-210",
            "StartContainer cri 210-260",
        ]
    );
    assert_eq!(timeline.entries[2].attributes["outlives_call"], true);
    let create = &timeline.entries[3].attributes;
    assert_eq!(create["argv"], json!(["/usr/bin/runc", "create", "s"]));
    assert_eq!((&create["exit_code"], create.get("error"), create.get("cni")), (&json!(0), None, None));
}

#[test]
fn what_runs_side_by_side_keeps_its_own_children() {
    let web = &pod("web");
    let evidence = [
        sandbox(),
        exec(web, &["bridge"], (10, 1), 20, Some(60)),
        exec(web, &["loopback"], (11, 1), 25, Some(50)),
        exec(web, &["host-local"], (12, 10), 30, Some(40)),
        exec(web, &["iptables"], (13, 11), 35, Some(40)),
    ];
    let drawn = drawn(&timeline(&evidence, web, 10_000).unwrap());
    let expected = [
        "  exec bridge exec 20-60",
        "    exec host-local exec 30-40",
        "  exec loopback exec 25-50",
        "    exec iptables exec 35-40",
    ];
    assert_eq!(drawn[1..5], expected);
}

#[test]
fn a_process_that_fails_tells_how() {
    let web = &pod("web");
    let ended = |mut seen: Evidence, status: i32, cni: &[&str]| {
        let Evidence::Exec(exec) = &mut seen else { panic!("made as an exec") };
        exec.exit_status = Some(status);
        exec.cni = cni.iter().map(|variable| (*variable).to_owned()).collect();
        seen
    };
    let evidence = [
        sandbox(),
        ended(exec(web, &["/opt/cni/bin/x"], (10, 1), 20, Some(40)), 0x0200, &["CNI_COMMAND=ADD", "CNI_IFNAME=eth0"]),
        ended(exec(web, &["runc", "create"], (11, 1), 50, Some(60)), 9, &[]),
    ];
    let timeline = timeline(&evidence, web, 10_000).unwrap();
    let [plugin, create] = [&timeline.entries[1], &timeline.entries[2]];
    assert_eq!((plugin.name.as_str(), &plugin.attributes["exit_code"]), ("cni x ADD", &json!(2)));
    assert_eq!(plugin.attributes["cni"], json!(["CNI_COMMAND=ADD", "CNI_IFNAME=eth0"]));
    assert_eq!((&create.attributes["signal"], create.attributes.get("exit_code")), (&json!(9), None));
    assert_eq!([plugin, create].map(|entry| entry.attributes["error"].clone()), [json!(true), json!(true)]);
}

#[test]
fn inner_spans_hang_below_their_parents_and_outlive_no_call() {
    let web = &pod("web");
    let inner = |name: &'static str| (name, SpanKind::Internal);
    let mut evidence = vec![
        span(web, inner("task.Wait"), 9, (5, 4), (60, 9_000)),
        span(web, inner("container.NewTask"), 9, (4, 2), (50, 70)),
        span(web, inner("orphan"), 9, (6, 77), (80, 90)),
        span(web, inner("far orphan"), 9, (7, 77), (80, 900)),
        span(web, ("runtime.v1.RuntimeService/RunPodSandbox", SpanKind::Server), 9, (2, 1), (1, 99)),
        span(web, ("runtime.v1.RuntimeService/RunPodSandbox", SpanKind::Client), 9, (1, 0xff), (0, 101)),
        call(web, "RunPodSandbox", 0, 100).span(9, 1).finished(),
        sync(web, "syncPod", 9, 0, 300, false),
        span(web, ("HTTP GET", SpanKind::Client), 9, (8, 0xff), (100, 150)),
    ];
    evidence.extend(container(web, "c1", "app", 200));
    let timeline = timeline(&evidence, web, 10_000).unwrap();
    assert_eq!(
        drawn(&timeline),
        [
            "syncPod sync 0-300",
            "  RunPodSandbox cri 0-100",
            "    container.NewTask cri 50-70",
            "      task.Wait cri 60-100",
            "    orphan cri 80-90",
            "gap between RunPodSandbox and CreateContainer gap 100-200",
            "  HTTP GET sync 100-150",
            "CreateContainer cri 200-210",
            "StartContainer cri 210-260",
        ]
    );
    assert_eq!(timeline.entries[1].attributes["client_overhead_ns"], 1_000_000);
    assert!(
        (timeline.summary.accounted_ratio - 160.0 / 260.0).abs() < 1e-9,
        "kubelet's own request accounts for nothing"
    );
}

#[test]
fn of_pods_of_one_name_the_newest_is_meant() {
    let old = &pod("web");
    let mut new = spanlet::pod::Pod::clone(old);
    new.uid = "uid-of-the-next".into();
    let new = &std::sync::Arc::new(new);
    let mut evidence =
        vec![call(old, "RunPodSandbox", 0, 100).finished(), call(new, "RunPodSandbox", 5_000, 5_100).finished()];
    evidence.extend(container(old, "c1", "app", 200));
    let timeline = timeline(&evidence, new, 10_000).unwrap();
    assert_eq!((timeline.summary.uid.as_str(), timeline.summary.state), ("uid-of-the-next", PodState::Starting));
    assert_eq!(crate::evidence::recorder(&evidence).pods(0).len(), 2);
}

#[test]
fn a_call_whose_pod_is_told_late_is_one_of_its_calls() {
    let web = &pod("web");
    let publish = call(web, "Publish", 20, 90).on(SocketKind::Csi, "csi.v1.Node/NodePublishVolume").unowned();
    let mut recorder = crate::evidence::recorder(&[sandbox(), publish.clone().started()]);
    let (connection, stream) = publish.stream_key();
    recorder.late_owner(connection, stream, &crate::evidence::owner(web));
    // Its end comes with no owner.
    crate::evidence::tell(&mut recorder, &publish.finished());
    let timeline = recorder.pod("default", "web", crate::evidence::at(100)).unwrap();
    assert_eq!(drawn(&timeline), ["RunPodSandbox cri 0-100", "NodePublishVolume csi 20-90"]);
    let calls = recorder.calls(Some("NodePublishVolume"), None);
    assert_eq!(calls[0].pod.as_ref().map(|pod| pod.name.as_str()), Some("web"));
}

#[test]
fn a_call_whose_end_was_lost_ends_where_its_span_says_or_with_what_is_known() {
    let web = &pod("web");
    let pull = call(web, "PullImage", 150, 0).span(1, 2).lost();
    let mut evidence = vec![sandbox(), pull];
    let drawn_now = |evidence: &[Evidence]| drawn(&timeline(evidence, web, 9_500).unwrap());
    assert!(drawn_now(&evidence).contains(&"PullImage cri 150-150".to_owned()), "{:?}", drawn_now(&evidence));
    let entry = timeline(&evidence, web, 9_500)
        .unwrap()
        .entries
        .into_iter()
        .find(|entry| entry.name.ends_with("/PullImage"))
        .unwrap();
    assert_eq!((entry.attributes.get("running"), entry.attributes.get("lost_track")), (None, Some(&json!(true))));
    evidence.push(span(web, ("runtime.v1.ImageService/PullImage", SpanKind::Client), 1, (2, 9), (149, 9_000)));
    assert!(drawn_now(&evidence).contains(&"PullImage cri 150-9000".to_owned()), "{:?}", drawn_now(&evidence));
}

#[test]
fn an_unnamed_call_offers_what_its_shape_tells_and_no_name() {
    const STATUS: &str = "runtime.v1.RuntimeService/Status";
    let web = &pod("web");
    let recorder = crate::evidence::recorder(&[call(web, "Status", 0, 10).guessed(&[STATUS]).finished()]);
    let calls = recorder.calls(None, None);
    assert_eq!((calls[0].method.as_deref(), calls[0].naming.as_str(), calls[0].over), (None, "unknown", true));
    let guess = calls[0].guess.as_ref().unwrap();
    assert_eq!(guess.methods, [STATUS]);
    assert_eq!(guess.evidence, ["an empty request", "a deadline of 120s"]);
    assert_eq!(recorder.calls(Some("Status"), None), [], "a guess is no method to ask for");
    let known = crate::evidence::recorder(&[call(web, "Status", 0, 10).finished()]).calls(None, None);
    assert_eq!(known[0].guess, None);
}
