//! What is kept, how long, and what is counted when it is not.

use super::*;

#[test]
fn a_pod_that_is_gone_keeps_its_last_spans() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    node.cri(2, "RuntimeService/RemovePodSandbox", sandbox("web"), None);
    node.pass("kubelet", [sync(3, 1, "syncTerminatedPod", "web")]);
    let removed = with(internal(4, 1, ROOT, "task.Delete"), [("task.id", id("web", "sandbox"))]);
    assert_eq!(pods(&node.pass("containerd", [removed])), [Some("web")]);
}

#[test]
fn a_full_store_forgets_pods_that_are_gone_first() {
    let mut node = Node::new();
    let learn = |node: &mut Node, number: usize| {
        let (name, uid) = (format!("pod-{number}"), format!("uid-{number}"));
        let pod = PodName { namespace: "default", name: &name, uid: &uid };
        node.enricher.learn(&Fact::Sandbox { id: &format!("{number:064x}"), pod }, Source::Runtime);
    };
    (0..1_024).for_each(|number| learn(&mut node, number));
    assert_eq!(node.enricher.counts().pods_held, 1_024);
    node.enricher.learn(&Fact::Gone { pod_uid: "uid-500", at_unix_nano: 1 }, Source::Api);
    learn(&mut node, 2_000);
    let is_known = |node: &Node, number: usize| node.enricher.owner_of(&format!("{number:064x}")).is_some();
    assert_eq!([0, 500, 2_000].map(|number| is_known(&node, number)), [true, false, true]);
    learn(&mut node, 2_001);
    assert_eq!([0, 1, 2_001].map(|number| is_known(&node, number)), [false, true, true]);
    assert_eq!((node.enricher.counts().pods_held, node.enricher.counts().store.pods_evicted), (1_024, 2));
}

#[test]
fn a_pod_that_is_gone_is_forgotten_in_time() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    node.start_pod(2, "api");
    let gone = |node: &mut Node, name: &str, at_unix_nano: u64| {
        node.enricher.learn(&Fact::Gone { pod_uid: &uid(name), at_unix_nano }, Source::Api);
    };
    gone(&mut node, "web", 1_000_000_000);
    gone(&mut node, "api", 400_000_000_000);
    node.start_pod(3, "new");
    assert_eq!(node.enricher.owner_of(&id("web", "sandbox")), None);
    assert_eq!(pod_of(node.enricher.owner_of(&id("api", "sandbox")).as_ref()), Some("api"));
    assert_eq!((node.enricher.counts().pods_held, node.enricher.counts().store.pods_evicted), (2, 0));
}

#[test]
fn a_static_pod_that_comes_back_is_not_gone() {
    let mut node = Node::new();
    node.start_pod(1, "etcd");
    node.enricher.learn(&Fact::Gone { pod_uid: &uid("etcd"), at_unix_nano: 1 }, Source::Api);
    node.cri(2, "RuntimeService/RunPodSandbox", metadata("etcd"), Some(&id("etcd", "again")));
    node.start_pod(3, "web");
    node.enricher.learn(&Fact::Gone { pod_uid: &uid("web"), at_unix_nano: 900_000_000_000 }, Source::Api);
    node.start_pod(4, "new");
    assert_eq!(pod_of(node.enricher.owner_of(&id("etcd", "again")).as_ref()), Some("etcd"));
}

#[test]
fn a_pod_keeps_its_newest_containers() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    for restart in 0..16 {
        node.cri(2, "RuntimeService/CreateContainer", sandbox("web"), Some(&id("web", &format!("restart-{restart}"))));
    }
    assert_eq!(node.enricher.owner_of(&id("web", "container")), None);
    assert_eq!(pod_of(node.enricher.owner_of(&id("web", "restart-15")).as_ref()), Some("web"));
    assert_eq!(node.enricher.counts().store.ids_evicted, 6);
}

#[test]
fn busy_traces_outlive_idle_ones() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let poll = |node: &mut Node, number: u64| {
        let mut span = internal(0, 1, ROOT, "poll");
        span.trace_id = [[7; 8], number.to_be_bytes()].concat();
        node.pass("kubelet", [span]);
    };
    (0..10_000).for_each(|number| poll(&mut node, number));
    assert!(node.enricher.counts().store.traces_evicted > 2_000);
    let passed = node.pass("kubelet", [client(1, 2, 1, "ImageService/ImageStatus")]);
    assert_eq!(pods(&passed), [Some("web")]);
}

#[test]
fn volumes_are_bounded() {
    let mut node = Node::new();
    let uid = uid("web");
    let pod = PodName { namespace: "default", name: "web", uid: &uid };
    for volume in 0..1_025 {
        node.enricher.learn(&Fact::Volume { id: &format!("vol-{volume}"), pod }, Source::Api);
    }
    assert_eq!(node.enricher.counts().store.ids_evicted, 1);
}
