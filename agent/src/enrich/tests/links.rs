//! Spans that asked for a pod become links of its syncs.

use super::*;
use crate::call::Traceparent;

const WRITE: &str = "Create etcd3";
const BIND: &str = "POST /api/v1/namespaces/{:namespace}/pods/{:name}/binding";

/// The spans of a request that makes the pod, as kube-apiserver sends them: the innermost first.
fn made(trace: u8, pod: &str, caller: u8) -> [Span; 2] {
    let key = format!("/registry/pods/default/{pod}");
    let write = with(internal(trace, 12, 11, WRITE), [("resource", "pods".to_owned()), ("key", key)]);
    let name = "POST /api/v1/namespaces/{:namespace}/pods";
    [write, called_by(new_span(trace, 11, ROOT, span::SpanKind::Server, name), caller)]
}

fn bound(trace: u8, pod: &str, caller: u8) -> Span {
    let path = format!("/api/v1/namespaces/default/pods/{pod}/binding?timeout=10s");
    let span = new_span(trace, 13, ROOT, span::SpanKind::Server, BIND);
    called_by(with(span, [("http.target", path)]), caller)
}

fn called_by(mut span: Span, caller: u8) -> Span {
    span.links.push(span::Link { trace_id: vec![caller; 16], span_id: vec![caller; 8], ..span::Link::default() });
    span
}

/// First byte of trace id and last of span id of each link.
fn links(span: &Span) -> Vec<(u8, u8)> {
    span.links.iter().map(|link| (link.trace_id[0], link.span_id[7])).collect()
}

fn synced(node: &mut Node, trace: u8, span_id: u64, name: &str, pod: &str) -> Vec<(u8, u8)> {
    let passed = node.pass("kubelet", [sync(trace, span_id, name, pod)]);
    links(&passed[0].0)
}

#[test]
fn who_made_and_bound_a_pod_is_linked_from_its_syncs() {
    let mut node = Node::new();
    node.pass("apiserver", made(50, "web", 60));
    node.pass("apiserver", [bound(51, "web", 61)]);
    let expected = [(50, 11), (60, 60), (51, 13), (61, 61)];
    assert_eq!(synced(&mut node, 1, 20, "syncPod", "web"), expected);
    assert_eq!(synced(&mut node, 2, 21, "syncPod", "web"), expected, "each sync of the pod");
    assert_eq!(synced(&mut node, 3, 22, "syncTerminatingPod", "web"), []);
    assert_eq!(synced(&mut node, 4, 23, "syncPod", "other"), []);
}

#[test]
fn a_request_that_failed_made_nothing() {
    let mut node = Node::new();
    let mut failed = bound(51, "web", 61);
    failed.status = Some(opentelemetry_proto::tonic::trace::v1::Status { code: 2, message: String::new() });
    let of_node =
        with(internal(50, 12, ROOT, WRITE), [("resource", "nodes".to_owned()), ("key", "/pods/a/b".to_owned())]);
    node.pass("apiserver", [failed, of_node]);
    node.pass("kubelet", [bound(52, "web", 62)]); // not kube-apiserver's
    assert_eq!(synced(&mut node, 1, 20, "syncPod", "web"), []);
}

#[test]
fn links_beyond_the_limit_are_counted() {
    let mut node = Node::new();
    (50..54).for_each(|trace| drop(node.pass("apiserver", [bound(trace, "web", trace + 50)])));
    assert_eq!(synced(&mut node, 1, 20, "syncPod", "web").len(), 4);
    assert_eq!(node.enricher.counts().of(IdentityResult::LinkDropped), 4);
}

#[test]
fn a_trace_is_not_linked_to_itself() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let cause = Traceparent { trace_id: [7; 16], span_id: [8; 8], flags: 1 };
    node.enricher.learn(&Fact::Cause { pod_uid: &uid("web"), span: cause }, Source::Api);
    assert_eq!(synced(&mut node, 7, 20, "syncPod", "web"), []);
    assert_eq!(synced(&mut node, 6, 21, "syncPod", "web"), [(7, 8)]);
}
