//! Whose spans are.

use super::*;

const LIST: &str = "RuntimeService/ListContainers";
const STATUS: &str = "RuntimeService/PodSandboxStatus";
const EXEC: &str = "RuntimeService/ExecSync";

#[test]
fn a_sync_span_owns_its_whole_trace() {
    let mut node = Node::new();
    let passed = node
        .pass("kubelet", [client(1, 2, 1, LIST), sync(1, 1, "syncTerminatingPod", "web"), client(2, 3, ROOT, LIST)]);
    assert_eq!(pods(&passed), [Some("web"), Some("web"), None]);
    assert_eq!(values(&passed[0].0, "k8s.pod.uid"), [uid("web")]);
    assert_eq!(values(&passed[0].0, "k8s.namespace.name"), ["default"]);
}

#[test]
fn what_a_span_has_already_is_not_told_again() {
    let mut node = Node::new();
    let mine = with(sync(1, 1, "syncPod", "web"), [("container.id", "theirs".to_owned())]);
    let passed = node.pass("kubelet", [mine]);
    for key in ["k8s.pod.uid", "k8s.pod.name", "k8s.namespace.name", "container.id"] {
        assert_eq!(values(&passed[0].0, key).len(), 1, "{key}");
    }
}

#[test]
fn a_poll_owns_only_the_calls_that_name_a_pod() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    node.start_pod(2, "api");
    let web = node.cri(3, STATUS, sandbox("web"), None);
    let api = node.cri(3, STATUS, sandbox("api"), None);
    let list = node.cri(3, LIST, Subject::Unknown, None);
    let passed = node.pass_joined(
        "kubelet",
        [
            (client(3, 11, 10, LIST), Some(list)),
            (client(3, 12, 10, STATUS), Some(web)),
            (client(3, 13, 10, STATUS), Some(api)),
            (internal(3, 10, ROOT, "relist"), None),
        ],
    );
    assert_eq!(pods(&passed), [None, Some("web"), Some("api"), None]);
}

#[test]
fn one_pods_status_does_not_own_its_siblings() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let status = node.cri(3, STATUS, sandbox("web"), None);
    let passed =
        node.pass_joined("kubelet", [(client(3, 11, 10, LIST), None), (client(3, 12, 10, STATUS), Some(status))]);
    assert_eq!(pods(&passed), [None, Some("web")]);
}

#[test]
fn garbage_collection_owns_nothing_by_its_trace() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let removed = |span: u64, parent| {
        with(server(3, span, parent, "RuntimeService/StopContainer"), [("container.id", id("web", "container"))])
    };
    // Without the wire, and before the list's span came: the first call seen is a stop.
    let passed = node.pass("containerd", [removed(21, 11)]);
    assert_eq!(pods(&passed), [Some("web")]);
    let root = internal(3, 10, ROOT, "Containers/GarbageCollect");
    let passed =
        node.pass("kubelet", [client(3, 11, 10, "RuntimeService/StopContainer"), client(3, 9, 10, LIST), root]);
    assert_eq!(pods(&passed), [Some("web"), None, None]);
}

#[test]
fn children_inherit_their_container_and_not_their_cousins() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let remove = with(server(3, 4, 3, "RuntimeService/RemoveContainer"), [("container.id", id("web", "container"))]);
    let passed = node.pass(
        "containerd",
        [
            new_span(3, 6, 5, span::SpanKind::Client, "containerd.task.v3.Task/State"),
            internal(3, 5, 4, "container.Delete"),
            remove,
            server(3, 7, 8, LIST),
        ],
    );
    assert_eq!(pods(&passed), [Some("web"), Some("web"), Some("web"), None]);
    let containers = passed.iter().map(|(span, _)| values(span, "container.id").len());
    assert_eq!(containers.collect::<Vec<_>>(), [1, 1, 1, 0]);
    // The client's span comes 5 s later, from kubelet.
    let passed = node.pass("kubelet", [client(3, 3, ROOT, "RuntimeService/RemoveContainer"), client(3, 8, ROOT, LIST)]);
    assert_eq!(pods(&passed), [Some("web"), None]);
}

#[test]
fn a_loop_of_parents_ends() {
    let mut node = Node::new();
    let passed = node.pass("containerd", [internal(3, 5, 6, "a"), internal(3, 6, 5, "b")]);
    assert_eq!(pods(&passed), [None, None]);
}

#[test]
fn containerd_1_7_tells_by_its_log_lines() {
    let mut node = Node::new();
    let (sandbox_id, container_id) = (id("web", "sandbox"), id("web", "container"));
    let meta = format!("&PodSandboxMetadata{{Name:web,Uid:{},Namespace:default,Attempt:0,}}", uid("web"));
    let run = line(
        server(1, 11, 1, "RuntimeService/RunPodSandbox"),
        &format!("RunPodSandbox for {meta} returns sandbox id \"{sandbox_id}\""),
    );
    let created = format!(
        "CreateContainer within sandbox \"{sandbox_id}\" for &ContainerMetadata{{Name:app,Attempt:0,}} returns container id \"{container_id}\""
    );
    let create = line(server(1, 12, 2, "RuntimeService/CreateContainer"), &created);
    let passed = node.pass("containerd", [server(1, 13, 3, "ImageService/ImageStatus"), create, run]);
    assert_eq!(pods(&passed), [Some("web"); 3]);
    let stop = line(
        server(2, 14, 4, "RuntimeService/StopContainer"),
        &format!("StopContainer for \"{container_id}\" returns successfully"),
    );
    let passed = node.pass("containerd", [stop]);
    assert_eq!(values(&passed[0].0, "k8s.container.name"), ["app"]);
    assert_eq!(passed[0].1.as_ref().map(|owner| owner.source), Some("event"));
}

#[test]
fn containerd_2_tells_by_attributes() {
    let mut node = Node::new();
    let sandbox_id = id("web", "sandbox");
    let name = format!("web_default_{}_0", uid("web"));
    let run = with(
        server(1, 11, 1, "RuntimeService/RunPodSandbox"),
        [("sandbox.id", sandbox_id.clone()), ("sandbox.name", name)],
    );
    let passed = node.pass(
        "containerd",
        [with(internal(1, 12, 11, "metadata.sandbox.Create"), [("sandbox.id", sandbox_id.clone())]), run],
    );
    assert_eq!(pods(&passed), [Some("web"); 2]);
    assert_eq!(passed[1].1.as_ref().map(|owner| owner.source), Some("span"));
    let shim = node.pass(
        &format!("containerd-shim-{sandbox_id}"),
        [new_span(9, 2, 1, span::SpanKind::Server, "containerd.task.v3.Task/Start")],
    );
    assert_eq!(pods(&shim), [Some("web")]);
    let task = with(internal(8, 1, ROOT, "task.Delete"), [("task.id", sandbox_id)]);
    let inner = new_span(8, 2, 1, span::SpanKind::Client, "containerd.task.v3.Task/Kill");
    assert_eq!(pods(&node.pass("containerd", [inner, task])), [Some("web"); 2]);
}

#[test]
fn crio_names_a_pod_whose_uid_kubelet_tells_later() {
    let mut node = Node::new();
    let sandbox_id = id("web", "sandbox");
    let run = || internal(1, 12, 11, "github.com/cri-o/cri-o/server.(*Server).runPodSandbox");
    let ran = format!("Ran pod sandbox {sandbox_id} with infra container: default/web/POD");
    let span = crio_line(crio_line(run(), "Running pod sandbox: default/web/POD"), &ran);
    let passed = node.pass("crio", [server(1, 11, 1, "RuntimeService/RunPodSandbox"), span]);
    assert_eq!(pods(&passed), [Some("web"); 2]);
    assert_eq!(values(&passed[1].0, "k8s.pod.name"), ["web"]);
    assert!(values(&passed[1].0, "k8s.pod.uid").is_empty());
    node.pass("kubelet", [sync(1, 1, "syncPod", "web")]);
    let status = node.cri(5, STATUS, sandbox("web"), None).owner.unwrap();
    assert_eq!(status.pod.uid, uid("web"));
    assert_eq!(node.enricher.counts().store.conflicts, 0);
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    // The same name, another sandbox, another trace: made again, perhaps.
    let ran = format!("Ran pod sandbox {} with infra container: default/web/POD", id("new", "sandbox"));
    let passed = node.pass("crio", [crio_line(internal(2, 12, 11, "runPodSandbox"), &ran)]);
    assert!(values(&passed[0].0, "k8s.pod.uid").is_empty());
    assert_eq!(values(&passed[0].0, "k8s.pod.name"), ["web"]);
}

#[test]
fn the_more_trusted_source_wins_and_the_conflict_is_counted() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let lie = format!(
        "RunPodSandbox for &PodSandboxMetadata{{Name:api,Uid:{},Namespace:default,Attempt:0,}} returns sandbox id \"{}\"",
        uid("api"),
        id("web", "sandbox")
    );
    node.pass("containerd", [line(server(2, 11, 1, "RuntimeService/RunPodSandbox"), &lie)]);
    assert_eq!(pod_of(node.enricher.owner_of(&id("web", "sandbox")).as_ref()), Some("web"));
    assert_eq!(node.enricher.counts().store.conflicts, 1);
    // The other way round the wire corrects what a line had told.
    node.start_pod(3, "new");
    let early = format!(
        "RunPodSandbox for &PodSandboxMetadata{{Name:api,Uid:{},Namespace:default,Attempt:0,}} returns sandbox id \"{}\"",
        uid("api"),
        id("late", "sandbox")
    );
    node.pass("containerd", [line(server(4, 11, 1, "RuntimeService/RunPodSandbox"), &early)]);
    node.start_pod(5, "late");
    assert_eq!(pod_of(node.enricher.owner_of(&id("late", "sandbox")).as_ref()), Some("late"));
    assert_eq!(node.enricher.counts().store.conflicts, 2);
}

#[test]
fn kubelets_span_does_not_overrule_the_wire() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let passed = node.pass("kubelet", [sync(1, 1, "syncPod", "api"), client(1, 2, 1, "ImageService/ImageStatus")]);
    assert_eq!(pods(&passed), [Some("api"), Some("web")]);
    assert_eq!(node.enricher.counts().store.conflicts, 1);
}

#[test]
fn spans_that_pass_before_their_pod_is_known_are_counted() {
    let mut node = Node::new();
    let passed = node.pass("containerd", [server(1, 11, 1, "ImageService/PullImage"), server(2, 12, 2, LIST)]);
    assert_eq!(pods(&passed), [None, None]);
    assert_eq!(node.enricher.counts().spans_early, 0);
    node.pass("kubelet", [sync(1, 1, "syncPod", "web")]);
    assert_eq!(node.enricher.counts().spans_early, 1);
}

#[test]
fn what_becomes_known_later_reaches_the_spans_of_earlier_calls() {
    let mut node = Node::new();
    let unknown = node.cri(1, STATUS, sandbox("web"), None);
    assert_eq!(unknown.owner, None);
    node.start_pod(2, "web");
    let passed = node.pass_joined("kubelet", [(client(1, 1, ROOT, STATUS), Some(unknown))]);
    assert_eq!(pods(&passed), [Some("web")]);
}

#[test]
fn a_probe_in_a_sync_that_is_long_over_is_marked() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let after_start = client(1, 2, 1, EXEC);
    let mut root = sync(1, 1, "syncPod", "web");
    root.end_time_unix_nano = 3_000;
    let passed = node.pass("kubelet", [after_start, root, client(1, 9, 1, EXEC), client(1, 10, 1, STATUS)]);
    let marks = passed.iter().map(|(span, _)| values(span, "spanlet.detached"));
    assert_eq!(marks.collect::<Vec<_>>(), [vec![], vec![], vec!["true".to_owned()], vec![]]);
}

#[test]
fn the_control_planes_spans_are_the_clusters() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let passed = node.pass("apiserver", [internal(1, 4, 3, "Update"), sync(2, 5, "syncPod", "web")]);
    assert_eq!(pods(&passed), [None, None]);
}

#[test]
fn workload_attributes_follow_the_pod() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let attributes = [own("k8s.deployment.name", "web"), own("k8s.pod.label.app", "web")];
    node.enricher.learn(&Fact::Attributes { pod_uid: &uid("web"), attributes: &attributes }, Source::Api);
    let span = with(sync(1, 1, "syncPod", "web"), [("k8s.pod.label.app", "mine".to_owned())]);
    let passed = node.pass("kubelet", [span]);
    assert_eq!(values(&passed[0].0, "k8s.deployment.name"), ["web"]);
    assert_eq!(values(&passed[0].0, "k8s.pod.label.app"), ["mine"]);
}

#[test]
fn workload_attributes_reach_the_spans_of_calls_that_were_made_before() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let before = node.cri(1, STATUS, sandbox("web"), None);
    let attributes = [("k8s.deployment.name".to_owned(), "web".to_owned())];
    node.enricher.learn(&Fact::Attributes { pod_uid: &uid("web"), attributes: &attributes }, Source::Api);
    let passed = node.pass_joined("kubelet", [(client(1, 1, ROOT, STATUS), Some(before))]);
    assert_eq!(values(&passed[0].0, "k8s.deployment.name"), ["web"]);
}

#[test]
fn shims_share_a_service_name_if_the_user_asks() {
    let shim = format!("containerd-shim-{}", id("web", "sandbox"));
    let resource_of = |shim_service: config::ShimService, service: &str| {
        let mut node = Node::with(config::Enrich { shim_service, ..config::Enrich::default() });
        node.start_pod(1, "web");
        let start = new_span(9, 2, 1, span::SpanKind::Server, "containerd.task.v3.Task/Start");
        let (resource, passed) = node.pass_with_resource(service, vec![(start, None)]);
        assert_eq!(pods(&passed), [(service == shim).then_some("web")]);
        let names = resource.attributes.iter().map(|attribute| attribute.key.clone());
        let values = ["service.name", "service.instance.id"].map(|key| value_of(&resource.attributes, key));
        (names.filter(|key| key == "service.name").count(), values)
    };
    let kept = (1, [Some(shim.clone()), None]);
    assert_eq!(resource_of(config::ShimService::Keep, &shim), kept);
    let collapsed = (1, [Some("containerd-shim".to_owned()), Some(shim.clone())]);
    assert_eq!(resource_of(config::ShimService::Collapse, &shim), collapsed);
    assert_eq!(resource_of(config::ShimService::Collapse, "containerd"), (1, [Some("containerd".to_owned()), None]));
}
