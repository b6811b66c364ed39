//! Spans of the phases of slow calls.

use super::*;

const NAMES: [&str; 4] = ["request wait", "handling", "response send", "response wait"];

#[test]
fn a_slow_sampled_call_shows_its_phases() {
    let mut synthesizer = synthesizer("enrich: {node_name: n1}");
    let slow = cri("RunPodSandbox", 1, SAMPLED, 3, 0, 1_000);
    finished(&mut synthesizer, &slow);
    let spans = made(&mut synthesizer);
    assert_eq!(names(&spans), NAMES);
    let mut at_ns = slow.started_ns;
    for span in &spans {
        let parent = slow.traceparent.unwrap();
        assert_eq!((&span.trace_id[..], &span.parent_span_id[..]), (&parent.trace_id[..], &parent.span_id[..]));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (at_ns, at_ns + SECOND_NS / 4));
        assert_eq!(text(span, "k8s.pod.name").as_deref(), Some("web"));
        at_ns = span.end_time_unix_nano;
    }
    let ids: std::collections::HashSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), NAMES.len());
}

#[test]
fn a_phase_that_is_unknown_or_empty_has_no_span() {
    let mut synthesizer = synthesizer("");
    let mut slow = cri("StopContainer", 1, SAMPLED, 3, 0, 2_000);
    slow.points.request_written_ns = None;
    slow.points.response_written_ns = slow.points.response_started_ns;
    finished(&mut synthesizer, &slow);
    assert_eq!(names(&made(&mut synthesizer)), ["handling", "response wait"]);
}

#[test]
fn quick_unsampled_and_streaming_calls_have_no_spans() {
    let mut synthesizer = synthesizer("correlate: {slow_call: 500ms}");
    finished(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 1, 0, 499));
    finished(&mut synthesizer, &cri("StartContainer", 1, 0, 3, 0, 9_000));
    finished(&mut synthesizer, &Call { traceparent: None, ..cri("StartContainer", 1, SAMPLED, 5, 0, 9_000) });
    finished(&mut synthesizer, &Call { streaming: true, ..cri("GetContainerEvents", 1, SAMPLED, 7, 0, 9_000) });
    started(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 9, 0, 9_000));
    assert_eq!(made(&mut synthesizer), []);
    finished(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 11, 0, 500));
    assert_eq!(made(&mut synthesizer).len(), NAMES.len());
}

#[test]
fn phases_can_be_switched_off() {
    let mut synthesizer = synthesizer("correlate: {phase_spans: false}");
    finished(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 1, 0, 9_000));
    assert_eq!(made(&mut synthesizer), []);
}

#[test]
fn the_resource_is_the_agents_and_the_nodes() {
    let config =
        "enrich: {node_name: n1, cluster_name: c1, resource_attributes: {host.name: h1, service.name: x, a: b}}";
    let mut synthesizer = synthesizer(config);
    finished(&mut synthesizer, &cri("StartContainer", 1, SAMPLED, 1, 0, 9_000));
    let request = ExportTraceServiceRequest::decode(synthesizer.take().unwrap().request).unwrap();
    let resource = &request.resource_spans[0];
    assert_eq!(resource.scope_spans[0].scope.as_ref().unwrap().name, "spanlet");
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    let mut told: Vec<(&str, String)> = attributes
        .iter()
        .map(|attribute| match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => (attribute.key.as_str(), text.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort();
    let expected = [
        ("a", "b"),
        ("host.name", "h1"),
        ("k8s.cluster.name", "c1"),
        ("k8s.node.name", "n1"),
        ("service.name", "spanlet"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(told, expected.map(|(key, value)| (key, value.to_owned())));
}
