//! Spans of plugin calls: what they say, what they hang below, how long they wait.

use super::*;
use crate::call::Claim;

const PUBLISH: &str = "csi.v1.Node/NodePublishVolume";
const STAGE: &str = "csi.v1.Node/NodeStageVolume";

fn publish() -> Call {
    Call { owner: Some(owner("web", "path")), ..csi(PUBLISH, 1) }
}

fn csi(method: &str, stream: u32) -> Call {
    let subject = Subject::Volume { id: "vol-1".to_owned(), paths: Vec::new() };
    Call { subject, ..call(SocketKind::Csi, method, stream, 0, 400) }
}

#[test]
fn a_plugin_call_is_part_of_the_pods_start() {
    let mut synthesizer = synthesizer("");
    finished(&mut synthesizer, &publish());
    let sandbox = cri("RunPodSandbox", 1, SAMPLED, 3, 500, 200);
    started(&mut synthesizer, &sandbox);
    finished(&mut synthesizer, &sandbox);
    assert_eq!(names(&made(&mut synthesizer)), [""; 0], "the span above the sandbox's is not known");
    joined(&mut synthesizer, &sandbox);

    let spans = made(&mut synthesizer);
    assert_eq!(names(&spans), [PUBLISH]);
    let span = &spans[0];
    assert_eq!((span.trace_id.as_slice(), span.parent_span_id.as_slice()), ([1; 16].as_slice(), SYNC_SPAN.as_slice()));
    assert_eq!(span.kind, 3, "client");
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (START_NS, START_NS + 400_000_000));
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", PUBLISH),
        ("rpc.response.status_code", "OK"),
        ("server.address", "/run/plugin.sock"),
        ("spanlet.call.handling_ns", "100000000"),
        ("k8s.pod.name", "web"),
        ("k8s.pod.uid", "uid-web"),
        ("k8s.namespace.name", "default"),
        ("k8s.deployment.name", "shop"),
        ("spanlet.identity.source", "path"),
    ] {
        assert_eq!(text(span, key).as_deref(), Some(value), "{key}");
    }
    assert!(!synthesizer.is_waiting());
}

/// No span can say how long it took.
#[test]
fn a_plugin_call_whose_end_was_lost_makes_no_span() {
    let mut synthesizer = synthesizer("");
    let points = Points { response_written_ns: None, response_read_ns: None, ..publish().points };
    finished(&mut synthesizer, &Call { status: None, lost_track: true, points, ..publish() });
    synthesizer.tick(u64::MAX);
    assert_eq!(names(&made(&mut synthesizer)), [""; 0]);
    assert!(!synthesizer.is_waiting());
}

#[test]
fn a_pod_known_by_its_uid_is_named_by_its_first_call() {
    let mut synthesizer = synthesizer("");
    let pod = Pod { uid: "uid-web".to_owned(), ..Pod::default() };
    let nameless = Owner { pod: Arc::new(pod), container: None, source: "path" };
    finished(&mut synthesizer, &Call { owner: Some(nameless), ..csi(PUBLISH, 1) });
    finished(&mut synthesizer, &cri("RunPodSandbox", 1, 0, 3, 500, 200));
    synthesizer.tick(u64::MAX);
    let span = made(&mut synthesizer).remove(0);
    assert_eq!(text(&span, "k8s.pod.name").as_deref(), Some("web"));
    assert_eq!(text(&span, "spanlet.identity.source").as_deref(), Some("path"));
}

#[test]
fn without_a_sampled_start_it_is_a_trace_of_its_own() {
    let mut synthesizer = synthesizer("");
    finished(&mut synthesizer, &publish());
    finished(&mut synthesizer, &cri("RunPodSandbox", 1, 0, 3, 500, 200));
    synthesizer.tick(START_NS + 15 * SECOND_NS);
    assert_eq!(made(&mut synthesizer), []);
    synthesizer.tick(START_NS + 16 * SECOND_NS);
    let spans = made(&mut synthesizer);
    assert_eq!(names(&spans), [PUBLISH]);
    assert_eq!(spans[0].parent_span_id, [0u8; 0]);
    assert_ne!(spans[0].trace_id, [1; 16]);
}

#[test]
fn of_two_starts_neither_is_guessed() {
    let mut synthesizer = synthesizer("");
    for (trace, after_ms) in [(1, 500), (2, 600)] {
        let start = cri("StartContainer", trace, SAMPLED, u32::from(trace), after_ms, 100);
        finished(&mut synthesizer, &start);
        joined(&mut synthesizer, &start);
    }
    finished(&mut synthesizer, &publish());
    assert_eq!(made(&mut synthesizer)[0].parent_span_id, [0u8; 0]);
}

#[test]
fn a_call_after_the_start_is_no_part_of_it() {
    let mut synthesizer = synthesizer("");
    let start = cri("StartContainer", 1, SAMPLED, 3, 0, 100);
    finished(&mut synthesizer, &start);
    joined(&mut synthesizer, &start);
    let unpublish = Call { owner: Some(owner("web", "path")), ..csi("csi.v1.Node/NodeUnpublishVolume", 9) };
    let later_ns = 3_600 * SECOND_NS;
    let unpublish =
        Call { started_ns: unpublish.started_ns + later_ns, ended_ns: unpublish.ended_ns + later_ns, ..unpublish };
    finished(&mut synthesizer, &unpublish);
    synthesizer.tick(u64::MAX);
    assert_eq!(made(&mut synthesizer)[0].parent_span_id, [0u8; 0]);
}

#[test]
fn a_traceparent_of_its_own_decides() {
    let mut synthesizer = synthesizer("");
    let traced =
        |flags| Call { traceparent: Some(Traceparent { trace_id: [9; 16], span_id: [8; 8], flags }), ..publish() };
    finished(&mut synthesizer, &traced(0));
    assert_eq!((made(&mut synthesizer), synthesizer.is_waiting()), (Vec::new(), false), "not sampled");
    finished(&mut synthesizer, &traced(SAMPLED));
    let span = made(&mut synthesizer).remove(0);
    assert_eq!((span.trace_id.as_slice(), span.parent_span_id.as_slice()), ([9; 16].as_slice(), [8; 8].as_slice()));
}

#[test]
fn a_late_owner_is_waited_for() {
    let mut synthesizer = synthesizer("");
    let claims = Subject::Claims(vec![Claim { uid: "claim-1".to_owned(), ..Claim::default() }]);
    let prepare = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
    finished(&mut synthesizer, &csi(STAGE, 1));
    finished(&mut synthesizer, &Call { subject: claims, ..call(SocketKind::Dra, prepare, 2, 0, 10) });
    finished(&mut synthesizer, &csi(STAGE, 3));
    synthesizer.late_owner(7, 1, &owner("web", "volume"));
    synthesizer.late_owner(7, 2, &owner("api", "claim"));
    synthesizer.tick(u64::MAX);
    let spans = made(&mut synthesizer);
    assert_eq!(names(&spans), [STAGE, prepare], "nobody owned the third");
    let told = |index: usize| (text(&spans[index], "k8s.pod.name"), text(&spans[index], "spanlet.identity.source"));
    assert_eq!(told(0), (Some("web".to_owned()), Some("volume".to_owned())));
    assert_eq!(told(1), (Some("api".to_owned()), Some("claim".to_owned())));
}

#[test]
fn what_failed_says_so() {
    let mut synthesizer = synthesizer("");
    let status = Some(Status { code: 5, source: StatusSource::Wire });
    finished(&mut synthesizer, &Call { status, ..publish() });
    synthesizer.tick(u64::MAX);
    let span = made(&mut synthesizer).remove(0);
    assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(text(&span, "rpc.response.status_code").as_deref(), Some("NOT_FOUND"));
    assert_eq!(text(&span, "error.type").as_deref(), Some("NOT_FOUND"));
}

#[test]
fn polls_the_nodes_own_calls_and_what_is_switched_off_make_no_span() {
    let mut on = synthesizer("");
    let owned = |method: &str| Call { owner: Some(owner("web", "path")), ..csi(method, 1) };
    finished(&mut on, &owned("csi.v1.Node/NodeGetVolumeStats"));
    finished(&mut on, &call(SocketKind::Csi, "csi.v1.Identity/Probe", 2, 0, 1));
    finished(&mut on, &call(SocketKind::Registration, "pluginregistration.Registration/GetInfo", 3, 0, 1));
    let mut off = synthesizer("correlate: {plugin_spans: false}");
    finished(&mut off, &publish());
    for synthesizer in [&mut on, &mut off] {
        assert!(!synthesizer.is_waiting());
        assert_eq!(made(synthesizer), []);
    }
}

#[test]
fn two_agents_make_the_same_span() {
    let ids = |boot: &str, shift_ns: u64, connection: u64| {
        let mut synthesizer = Synthesizer::new(&Config::default(), boot);
        let call = publish();
        finished(&mut synthesizer, &Call { started_ns: call.started_ns + shift_ns, connection, ..call });
        synthesizer.tick(u64::MAX);
        let span = made(&mut synthesizer).remove(0);
        (span.trace_id, span.span_id)
    };
    let first = ids("boot-1", 0, 7);
    assert_eq!(first, ids("boot-1", 2_000, 7), "each reads the clock by itself");
    for other in [ids("boot-2", 0, 7), ids("boot-1", 60 * SECOND_NS, 7), ids("boot-1", 0, 8)] {
        assert!(first.0 != other.0 && first.1 != other.1);
    }
}

#[test]
fn the_oldest_of_too_many_waits_no_longer() {
    let mut synthesizer = synthesizer("");
    for stream in 0..300 {
        finished(&mut synthesizer, &Call { stream, ..publish() });
    }
    assert_eq!(made(&mut synthesizer).len(), 300 - 256);
    synthesizer.tick(u64::MAX);
    assert_eq!(made(&mut synthesizer).len(), 256);
}
