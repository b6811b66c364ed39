//! Whose calls and processes are.

use super::*;
use crate::call::Claim;
use crate::exec::Exec;

#[test]
fn the_wire_tells_whose_a_call_is() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    for (method, subject) in [
        ("RuntimeService/PodSandboxStatus", sandbox("web")),
        ("RuntimeService/ContainerStatus", container("web")),
        ("RuntimeService/ExecSync", container("web")),
    ] {
        let owner = node.cri(9, method, subject, None).owner.unwrap();
        assert_eq!((pod_of(Some(&owner)), owner.source), (Some("web"), "wire"), "{method}");
        let is_container = method != "RuntimeService/PodSandboxStatus";
        assert_eq!(
            owner.container.as_ref().map(|container| container.id.clone()),
            is_container.then(|| id("web", "container"))
        );
    }
}

#[test]
fn a_created_containers_call_names_its_container() {
    let mut node = Node::new();
    node.cri(1, "RuntimeService/RunPodSandbox", metadata("web"), Some(&id("web", "sandbox")));
    let new = id("web", "container");
    let owner = node.cri(1, "RuntimeService/CreateContainer", sandbox("web"), Some(&new)).owner.unwrap();
    assert_eq!(owner.container.unwrap().id, new);
}

#[test]
fn calls_of_the_node_belong_to_no_pod() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    for method in ["ListPodSandbox", "ListContainers", "Version", "Status", "ListContainerStats", "GetContainerEvents"]
    {
        // A list may be filtered by id; it is the node's all the same.
        for subject in [Subject::Unknown, sandbox("web")] {
            assert_eq!(node.cri(2, &format!("RuntimeService/{method}"), subject, None).owner, None, "{method}");
        }
    }
    let image = Subject::Image("app:1".to_owned());
    assert_eq!(node.cri(3, "ImageService/ImageStatus", image, None).owner, None);
    assert_eq!(node.cri(4, "RuntimeService/PodSandboxStatus", sandbox("other"), None).owner, None);
}

#[test]
fn an_image_is_pulled_for_the_pod_whose_trace_it_is_in() {
    let mut node = Node::new();
    let image = || Subject::Image("app:1".to_owned());
    node.cri(1, "RuntimeService/RunPodSandbox", metadata("web"), Some(&id("web", "sandbox")));
    node.cri(2, "RuntimeService/RunPodSandbox", metadata("api"), Some(&id("api", "sandbox")));
    let pull = node.cri(1, "ImageService/PullImage", image(), None).owner.unwrap();
    assert_eq!((pod_of(Some(&pull)), pull.source), (Some("web"), "trace"));
    assert_eq!(pod_of(node.cri(2, "ImageService/ImageStatus", image(), None).owner.as_ref()), Some("api"));
}

#[test]
fn a_terminating_pods_trace_is_known_by_its_first_call() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    node.cri(2, "RuntimeService/StopContainer", container("web"), None);
    let list = node.cri(2, "RuntimeService/ListPodSandbox", Subject::Unknown, None);
    assert_eq!(pod_of(list.owner.as_ref()), Some("web"));
}

#[test]
fn garbage_collection_lists_for_nobody() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    node.start_pod(2, "api");
    let list = |node: &mut Node| node.cri(3, "RuntimeService/ListContainers", Subject::Unknown, None).owner;
    assert_eq!(list(&mut node), None);
    let stopped = node.cri(3, "RuntimeService/StopPodSandbox", sandbox("web"), None);
    assert_eq!(pod_of(stopped.owner.as_ref()), Some("web"));
    assert_eq!(list(&mut node), None, "one pod so far");
    let removed = node.cri(3, "RuntimeService/RemovePodSandbox", sandbox("api"), None);
    assert_eq!(pod_of(removed.owner.as_ref()), Some("api"));
    assert_eq!(list(&mut node), None, "two pods");
}

#[test]
fn containers_from_before_the_agent_are_known_by_their_trace() {
    let mut node = Node::new();
    node.pass("kubelet", [sync(1, 1, "syncPod", "old")]);
    node.cri(1, "RuntimeService/StopContainer", container("old"), None);
    let status = node.cri(7, "RuntimeService/ContainerStatus", container("old"), None).owner.unwrap();
    assert_eq!((pod_of(Some(&status)), status.source), (Some("old"), "trace"));
}

#[test]
fn an_unnamed_call_is_judged_by_what_it_carries() {
    let mut node = Node::new();
    let unnamed = |node: &mut Node, subject: Subject, response_id: Option<&str>| {
        node.calls += 1;
        let mut call = node.cri(1, "RuntimeService/Version", Subject::Unknown, None);
        (call.method, call.naming, call.subject) = (None, Naming::Unknown, subject);
        call.response_id = response_id.map(str::to_owned);
        let mut event = CallEvent::Finished(Box::new(call));
        node.enricher.call(&mut event);
        let CallEvent::Finished(call) = event else { unreachable!() };
        call.owner
    };
    assert_eq!(pod_of(unnamed(&mut node, metadata("web"), Some(&id("web", "sandbox"))).as_ref()), Some("web"));
    assert_eq!(pod_of(unnamed(&mut node, sandbox("web"), Some(&id("web", "container"))).as_ref()), Some("web"));
    assert_eq!(pod_of(unnamed(&mut node, container("web"), None).as_ref()), Some("web"));
}

// === plugins ===

const PUBLISH: &str = "csi.v1.Node/NodePublishVolume";
const STAGE: &str = "csi.v1.Node/NodeStageVolume";
const UNSTAGE: &str = "csi.v1.Node/NodeUnstageVolume";

fn csi(node: &mut Node, method: &str, volume: &str, pod: Option<&str>) -> Call {
    let path = match pod {
        Some(pod) => format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/{volume}/mount", uid(pod)),
        None => format!("/var/lib/kubelet/plugins/kubernetes.io/csi/driver/{volume}/globalmount"),
    };
    let subject = Subject::Volume { id: volume.to_owned(), paths: vec![path] };
    node.call(SocketKind::Csi, None, method, subject, None)
}

#[test]
fn a_published_volume_names_its_pod_by_uid() {
    let mut node = Node::new();
    let owner = csi(&mut node, PUBLISH, "vol-1", Some("web")).owner.unwrap();
    assert_eq!((owner.pod.uid.clone(), owner.pod.name.as_str(), owner.source), (uid("web"), "", "path"));
    node.start_pod(1, "web");
    let owner = csi(&mut node, "csi.v1.Node/NodeGetVolumeStats", "vol-1", Some("web")).owner.unwrap();
    assert_eq!((owner.pod.name.as_str(), owner.source), ("web", "path"));
}

#[test]
fn a_staged_volume_is_for_the_pod_it_is_published_for_next() {
    let mut node = Node::new();
    for pod in ["web", "api"] {
        let staged = csi(&mut node, STAGE, "vol-1", None);
        assert_eq!(staged.owner, None, "for {pod}");
        csi(&mut node, PUBLISH, "vol-1", Some(pod));
        let late = node.enricher.take_late_owners();
        let told: Vec<_> =
            late.iter().map(|late| (late.stream, late.owner.pod.uid.clone(), late.owner.source)).collect();
        assert_eq!(told, [(staged.stream, uid(pod), "volume")]);
        csi(&mut node, "csi.v1.Node/NodeUnpublishVolume", "vol-1", Some(pod));
        let unstaged = csi(&mut node, UNSTAGE, "vol-1", None).owner.unwrap();
        assert_eq!((unstaged.pod.uid.clone(), unstaged.source), (uid(pod), "volume"));
    }
    assert_eq!(csi(&mut node, UNSTAGE, "vol-2", None).owner, None);
}

#[test]
fn too_many_staged_volumes_are_counted() {
    let mut node = Node::new();
    for volume in 0..300 {
        csi(&mut node, STAGE, &format!("vol-{volume}"), None);
    }
    assert_eq!(node.enricher.counts().pending_dropped, 300 - 256);
}

#[test]
fn claims_are_the_pods_that_reserved_them() {
    let mut node = Node::new();
    let claims = |uid: &str| Subject::Claims(vec![Claim { uid: uid.to_owned(), ..Claim::default() }]);
    let prepare = |node: &mut Node, claim: &str| {
        let method = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
        node.call(SocketKind::Dra, None, method, claims(claim), None)
    };
    let first = prepare(&mut node, "claim-1");
    assert_eq!(first.owner, None);
    let web = uid("web");
    let pod = PodName { namespace: "default", name: "web", uid: &web };
    node.enricher.learn(&Fact::Claim { uid: "claim-1", pod }, Source::Api);
    let late = node.enricher.take_late_owners();
    assert_eq!(late.iter().map(|late| (late.stream, late.owner.source)).collect::<Vec<_>>(), [(first.stream, "claim")]);
    let owner = prepare(&mut node, "claim-1").owner.unwrap();
    assert_eq!((pod_of(Some(&owner)), owner.source), (Some("web"), "claim"));
}

fn by_name(name: &'static str) -> PodName<'static> {
    PodName { namespace: "default", name, uid: "" }
}

fn allocate(node: &mut Node, device: &str) -> Call {
    let subject = Subject::Device(device.to_owned());
    node.call(SocketKind::DevicePlugin, None, "v1beta1.DevicePlugin/Allocate", subject, None)
}

/// Stream, pod and source of each.
fn late(node: &mut Node) -> Vec<(u32, String, &'static str)> {
    let late = node.enricher.take_late_owners().into_iter();
    late.map(|late| (late.stream, late.owner.pod.name.clone(), late.owner.source)).collect()
}

/// What is asked of a call on a device, and whose it turns out to be.
fn given(
    node: &mut Node,
    method: &str,
    device: &str,
    pod: &'static str,
) -> (Vec<String>, Vec<(u32, String, &'static str)>) {
    let subject = Subject::Device(device.to_owned());
    let call = node.call(SocketKind::DevicePlugin, None, &format!("v1beta1.DevicePlugin/{method}"), subject, None);
    assert_eq!(call.owner, None, "before kubelet has said so");
    let asked = asked(node);
    node.enricher.learn(&Fact::Device { id: device, pod: by_name(pod) }, Source::Runtime);
    let told = late(node);
    assert!(told.iter().all(|(stream, _, _)| *stream == call.stream), "{told:?}");
    (asked, told)
}

#[test]
fn a_device_is_the_pods_that_kubelet_gave_it_to() {
    let mut node = Node::new();
    node.start_pod(1, "old");
    node.start_pod(2, "new");
    node.enricher.take_questions();
    // Of several devices each call shows one: gpu-1 was the old pod's when that started, and is the new one's now.
    for (pod, allocated, started) in [("old", "gpu-0", "gpu-1"), ("new", "gpu-0", "gpu-1"), ("old", "gpu-1", "gpu-1")] {
        for (method, device) in [("Allocate", allocated), ("PreStartContainer", started)] {
            let (asked, told) = given(&mut node, method, device, pod);
            assert_eq!(asked, [format!("device {device}")], "{method} for {pod}");
            let told: Vec<_> = told.into_iter().map(|(_, pod, source)| (pod, source)).collect();
            assert_eq!(told, [(pod.to_owned(), "device")], "{method}");
        }
    }
}

#[test]
fn a_device_waits_for_a_pod_that_is_known_by_name_only() {
    let mut node = Node::new();
    let allocated = allocate(&mut node, "gpu-0");
    node.enricher.learn(&Fact::Device { id: "gpu-0", pod: by_name("web") }, Source::Runtime);
    assert_eq!(late(&mut node), []);
    node.start_pod(1, "web");
    assert_eq!(late(&mut node), [(allocated.stream, "web".to_owned(), "device")]);
}

#[test]
fn a_claim_is_known_by_its_name_too() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    node.enricher.take_questions();
    let claim = Claim { namespace: "default".to_owned(), uid: "claim-1".to_owned(), name: "gpu".to_owned() };
    let prepare = |node: &mut Node| {
        let method = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
        // The same folder holds CSI and DRA sockets.
        node.call(SocketKind::Csi, None, method, Subject::Claims(vec![claim.clone()]), None)
    };
    let first = prepare(&mut node);
    assert_eq!((&first.owner, asked(&mut node)), (&None, vec!["claim default/gpu".to_owned()]));
    node.enricher.learn(&Fact::ClaimName { namespace: "default", name: "gpu", pod: by_name("web") }, Source::Runtime);
    assert_eq!(late(&mut node), [(first.stream, "web".to_owned(), "claim")]);
    let web = uid("web");
    let pod = PodName { namespace: "default", name: "web", uid: &web };
    node.enricher.learn(&Fact::Claim { uid: "claim-1", pod }, Source::Api);
    assert_eq!(late(&mut node), [], "told once");
    assert_eq!(prepare(&mut node).owner.unwrap().source, "claim");
}

#[test]
fn calls_of_other_plugins_name_no_pod() {
    let mut node = Node::new();
    let call = node.call(SocketKind::DevicePlugin, None, "v1beta1.DevicePlugin/Allocate", Subject::Unknown, None);
    assert_eq!(call.owner, None);
}

// === processes ===

/// A process that nothing else started.
fn owner_of_process(node: &mut Node, argv: &[&str], cni: &[&str]) -> Option<Owner> {
    let mut exec = process((1_000, 999), argv, cni);
    node.enricher.exec(&mut exec);
    exec.owner
}

fn process((pid, parent_pid): (u32, u32), argv: &[&str], cni: &[&str]) -> Exec {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Exec {
        pid,
        parent_pid,
        argv: own(argv),
        cni: own(cni),
        started_ns: 0,
        ended_ns: None,
        exit_status: None,
        cpu_ns: None,
        owner: None,
    }
}

#[test]
fn a_cni_plugin_tells_its_sandbox_before_the_runtime_does() {
    let mut node = Node::new();
    let arguments =
        format!("CNI_ARGS=IgnoreUnknown=1;K8S_POD_UID={};K8S_POD_NAME=web;K8S_POD_NAMESPACE=default", uid("web"));
    let sandbox_id = format!("CNI_CONTAINERID={}", id("web", "sandbox"));
    let owner = owner_of_process(&mut node, &["/opt/cni/bin/bridge"], &["CNI_COMMAND=ADD", &arguments, &sandbox_id]);
    assert_eq!(pod_of(owner.as_ref()), Some("web"));
    let shim = id("web", "sandbox");
    let owner = owner_of_process(&mut node, &["containerd-shim-runc-v2", "-id", &shim, "start"], &[]);
    assert_eq!((pod_of(owner.as_ref()), owner.as_ref().and_then(|owner| owner.container.clone())), (Some("web"), None));
}

#[test]
fn conmon_tells_its_container_by_name() {
    let mut node = Node::new();
    let (sandbox, container) = (id("web", "sandbox"), id("web", "container"));
    let name = |container: &str| format!("k8s_{container}_web_default_{}_0", uid("web"));
    let owner = owner_of_process(&mut node, &["conmon", "-c", &sandbox, "-n", &name("POD")], &[]);
    assert_eq!((pod_of(owner.as_ref()), owner.as_ref().and_then(|owner| owner.container.clone())), (Some("web"), None));
    owner_of_process(&mut node, &["conmon", "-c", &container, "-n", &name("app")], &[]);
    let owner = owner_of_process(&mut node, &["runc", "start", &container], &[]).unwrap();
    assert_eq!((pod_of(Some(&owner)), owner.container.as_ref().unwrap().name.as_str()), (Some("web"), "app"));
}

#[test]
fn a_process_of_nobody_knows_has_no_owner() {
    let mut node = Node::new();
    assert_eq!(owner_of_process(&mut node, &["runc", "--version"], &[]), None);
    assert_eq!(owner_of_process(&mut node, &["runc", "start", &id("web", "container")], &["CNI_ARGS=x"]), None);
}

#[test]
fn an_id_in_a_path_counts_where_the_last_argument_is_cut() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let container = id("web", "container");
    let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container}");
    let owner = owner_of_process(&mut node, &["runc", "create", "--bundle", &bundle, "--pid-file", "/run/cont"], &[]);
    assert_eq!(pod_of(owner.as_ref()), Some("web"));
    let other = format!("--bundle=/run/{}", id("other", "container"));
    assert_eq!(owner_of_process(&mut node, &["runc", "create", &other], &[]), None);
}

#[test]
fn a_process_without_an_id_is_its_parents_while_that_runs() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    let mut create = process((10, 1), &["runc", "create", &id("web", "container")], &[]);
    node.enricher.exec(&mut create);
    let mut child = |pids: (u32, u32)| {
        let mut init = process(pids, &["runc", "init"], &[]);
        node.enricher.exec(&mut init);
        pod_of(init.owner.as_ref()).map(str::to_owned)
    };
    assert_eq!(child((11, 10)).as_deref(), Some("web"));
    assert_eq!(child((12, 11)).as_deref(), Some("web"));
    assert_eq!(child((13, 2)), None);
    create.ended_ns = Some(5);
    node.enricher.exec(&mut create);
    let mut late = process((14, 10), &["runc", "init"], &[]);
    node.enricher.exec(&mut late);
    assert_eq!(late.owner, None);
}

#[test]
fn processes_wait_for_the_answer_that_names_their_sandbox() {
    let mut node = Node::new();
    let sandbox_id = id("web", "sandbox");
    let mut shim = process((10, 1), &["containerd-shim-runc-v2", "-id", &sandbox_id], &[]);
    let mut init = process((11, 10), &["runc", "init"], &[]);
    for exec in [&mut shim, &mut init, &mut process((12, 1), &["runc", "--version"], &[])] {
        node.enricher.exec(exec);
        assert_eq!(exec.owner, None);
    }
    shim.ended_ns = Some(7);
    node.enricher.exec(&mut shim);
    assert_eq!(node.enricher.take_late_execs(), []);
    node.cri(1, "RuntimeService/RunPodSandbox", metadata("web"), Some(&sandbox_id));
    let late = node.enricher.take_late_execs();
    let told: Vec<_> = late.iter().map(|exec| (exec.pid, exec.ended_ns, pod_of(exec.owner.as_ref()))).collect();
    assert_eq!(told, [(10, Some(7), Some("web")), (11, None, Some("web"))]);
    assert_eq!(node.enricher.take_late_execs(), []);
}

#[test]
fn too_many_that_wait_or_run_are_given_up_and_counted() {
    let mut node = Node::new();
    for pid in 0..300 {
        node.enricher.exec(&mut process((pid, 9_999), &["runc", &id("other", "container")], &[]));
    }
    assert_eq!(node.enricher.counts().pending_dropped, 300 - 256);
    node.start_pod(1, "web");
    for pid in 0..5_000 {
        node.enricher.exec(&mut process((pid, 9_999), &["containerd-shim", &id("web", "sandbox")], &[]));
    }
    assert_eq!(node.enricher.counts().pending_dropped, 300 - 256 + 5_000 - 4_096);
    let mut child = process((6_000, 4_999), &["runc", "init"], &[]);
    node.enricher.exec(&mut child);
    assert_eq!(pod_of(child.owner.as_ref()), Some("web"));
}

// === questions ===

fn asked(node: &mut Node) -> Vec<String> {
    let ids = node.enricher.take_questions().into_iter().map(|question| match question {
        Question::Container { id } => id,
        Question::Device { id } => format!("device {id}"),
        Question::Claim { namespace, name } => format!("claim {namespace}/{name}"),
    });
    ids.collect()
}

#[test]
fn a_container_that_nothing_has_named_is_asked_for_once() {
    let mut node = Node::new();
    node.start_pod(1, "web");
    assert_eq!(asked(&mut node), [id("web", "container")]);
    node.cri(2, "RuntimeService/ContainerStatus", container("web"), None);
    assert_eq!(asked(&mut node), [""; 0]);

    let uid = uid("web");
    let pod = PodName { namespace: "default", name: "web", uid: &uid };
    node.enricher.learn(&Fact::Container { id: &id("web", "container"), name: "app", pod }, Source::Runtime);
    let owner = node.cri(3, "RuntimeService/ExecSync", container("web"), None).owner.unwrap();
    assert_eq!((owner.container.unwrap().name.as_str(), owner.source), ("app", "wire"));
}

#[test]
fn a_container_is_asked_for_unless_it_is_named_or_being_removed() {
    let mut node = Node::new();
    let uid = uid("old");
    let pod = PodName { namespace: "default", name: "old", uid: &uid };
    node.enricher.learn(&Fact::Container { id: &id("old", "container"), name: "app", pod }, Source::Runtime);
    node.cri(1, "RuntimeService/StartContainer", container("old"), None);
    node.cri(2, "RuntimeService/RemoveContainer", container("other"), None);
    assert_eq!(asked(&mut node), [""; 0]);
    node.cri(3, "RuntimeService/StopContainer", container("other"), None);
    assert_eq!(asked(&mut node), [id("other", "container")]);
}
