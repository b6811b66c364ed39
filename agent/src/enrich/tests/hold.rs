//! Requests that wait for the pods of their spans.

use std::time::{Duration, Instant};

use super::*;

const LIST: &str = "RuntimeService/ListContainers";
const LONG: Duration = Duration::from_secs(60);

impl Node {
    /// What becomes of a request if it is held: whether it waits, and the pods of its spans when it leaves.
    fn hold(&mut self, hold: &mut Hold<u32>, service: &str, spans: Vec<Span>, number: u32) -> bool {
        let mut batch = batch_of(service, spans);
        self.enricher.identify(&mut batch);
        let awaits = self.enricher.awaits(&batch);
        assert!(hold.keep(batch, number, Instant::now()).is_empty());
        awaits
    }

    fn ready(&mut self, hold: &mut Hold<u32>) -> Vec<(u32, Vec<Option<String>>)> {
        let ready = hold.take_ready(&mut self.enricher, Instant::now());
        let finished = ready.into_iter().map(|(mut batch, number)| {
            self.enricher.finish(&mut batch);
            (number, batch.owners.iter().map(|owner| pod_of(owner.as_ref()).map(str::to_owned)).collect())
        });
        finished.collect()
    }
}

fn batch_of(service: &str, spans: Vec<Span>) -> Batch {
    let resource = Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    Batch::new(batch::Source::Grpc, TraceRequest::parse(request.into()).unwrap())
}

fn web() -> Option<String> {
    Some("web".to_owned())
}

fn tell_container(node: &mut Node, name: &str) {
    let (id, uid) = (id(name, "container"), uid(name));
    let pod = PodName { namespace: "default", name, uid: &uid };
    node.enricher.learn(&Fact::Container { id: &id, name: "app", pod }, Source::Api);
}

#[test]
fn a_request_is_ready_when_a_trace_an_id_or_a_parent_tells_the_pods_of_all_its_spans() {
    let mut node = Node::new();
    let mut hold = Hold::new(LONG, usize::MAX);
    let status = with(server(2, 21, 20, "RuntimeService/ContainerStatus"), [("container.id", id("web", "container"))]);
    let below = internal(2, 22, 21, "task.State");
    let pull = server(1, 11, 10, "ImageService/PullImage");
    assert!(node.hold(&mut hold, "containerd", vec![pull.clone(), status], 1));
    assert!(node.hold(&mut hold, "containerd", vec![below], 2));
    assert!(node.hold(&mut hold, "containerd", vec![pull], 3));
    assert_eq!(node.ready(&mut hold), []);
    tell_container(&mut node, "web");
    assert_eq!(node.ready(&mut hold), [(2, vec![web()])], "the pull's pod is not known");
    node.pass("kubelet", [sync(1, 10, "syncPod", "web")]);
    assert_eq!(node.ready(&mut hold), [(1, vec![web(), web()]), (3, vec![web()])]);
    assert!(hold.is_empty());
    assert_eq!(node.enricher.counts().spans_early, 0, "none has left before its pod was known");
}

#[test]
fn what_is_nobodys_is_not_waited_for_and_not_given_to_anybody() {
    let mut node = Node::new();
    let mut hold = Hold::new(LONG, usize::MAX);
    let filtered = || with(server(4, 41, 40, LIST), [("container.id", id("web", "container"))]);
    let collected = internal(3, 30, ROOT, "Containers/GarbageCollect");
    for (service, span, awaits) in [
        ("kubelet", client(5, 50, ROOT, LIST), false),
        ("kubelet", client(5, 51, ROOT, "RuntimeService/RemoveContainer"), true),
        ("kubelet", collected, false),
        ("containerd", with(internal(7, 70, ROOT, "task.Delete"), [("task.id", id("web", "container"))]), true),
        ("containerd", server(3, 31, 30, LIST), false), // of that collection
        ("containerd", filtered(), true),
        ("apiserver", internal(6, 61, 60, "Get etcd3"), false),
    ] {
        assert_eq!(node.hold(&mut hold, service, vec![span.clone()], 0), awaits, "{}", span.name);
    }
    tell_container(&mut node, "web");
    node.ready(&mut hold);
    assert!(node.hold(&mut hold, "containerd", vec![filtered()], 1));
    assert_eq!(node.ready(&mut hold), [], "a list is nobody's, filtered or not");
}

#[test]
fn a_request_that_has_waited_long_enough_leaves_as_it_is() {
    let mut node = Node::new();
    let mut hold = Hold::new(Duration::ZERO, usize::MAX);
    node.hold(&mut hold, "containerd", vec![server(1, 11, 10, "ImageService/PullImage")], 1);
    assert_eq!(node.ready(&mut hold), [(1, vec![None])]);
    node.pass("kubelet", [sync(1, 10, "syncPod", "web")]);
    assert_eq!(node.enricher.counts().spans_early, 1);
}

#[test]
fn the_oldest_leave_when_too_many_bytes_wait() {
    let request = || batch_of("containerd", vec![server(1, 11, 10, "ImageService/PullImage")]);
    let mut hold = Hold::new(LONG, 2 * request().request.memory_bytes());
    let now = Instant::now();
    let mut left = |number| hold.keep(request(), number, now).into_iter().map(|(_, number)| number).collect::<Vec<_>>();
    assert_eq!([left(1), left(2), left(3), left(4)], [vec![], vec![], vec![1], vec![2]]);
    assert_eq!(hold.take_all().len(), 2);
    assert!(hold.keep(request(), 5, now).is_empty() && hold.keep(request(), 6, now).is_empty(), "all is given back");
}
