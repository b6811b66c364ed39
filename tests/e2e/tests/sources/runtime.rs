//! The runtime as a source: its lists, its container statuses, its restarts.

use std::collections::HashMap;
use std::path::Path;

use spanlet::config::Config;
use spanlet::enrich::sources::Sources;
use spanlet::enrich::{News, OwnedFact, OwnedPodName, Question, Source};
use spanlet_node::stand_in::{Answers, Server};
use spanlet_proto::cri::{
    Container, ContainerMetadata, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    ListContainersRequest, ListContainersResponse, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata,
};
use tokio::sync::mpsc;

use crate::{metrics, next};

const LIST_SANDBOXES: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";

fn config(socket: &Path, more: &str) -> Config {
    let text = format!(
        "capture: {{sockets: [{{kind: csi, path: /none}}, {{kind: cri, path: /none.sock}}, {{kind: cri, path: {}}}]}}\n{more}",
        socket.display()
    );
    Config::parse(&text, |_| None).unwrap()
}

fn metadata(name: &str) -> PodSandboxMetadata {
    PodSandboxMetadata {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        namespace: "default".to_owned(),
        attempt: 0,
    }
}

fn pod(name: &str) -> OwnedPodName {
    OwnedPodName { namespace: "default".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
}

/// The lists of a runtime with one pod, whose sandbox and container are called after it.
fn lists(answers: &Answers, name: &str) {
    let sandbox = PodSandbox { id: format!("sandbox-{name}"), metadata: Some(metadata(name)) };
    answers.add(LIST_SANDBOXES, &ListPodSandboxResponse { items: vec![sandbox] });
    let container = Container {
        id: format!("container-{name}"),
        pod_sandbox_id: format!("sandbox-{name}"),
        metadata: Some(ContainerMetadata { name: "app".to_owned() }),
    };
    answers.add(LIST_CONTAINERS, &ListContainersResponse { containers: vec![container] });
}

fn listed(name: &str) -> News {
    let sandbox = OwnedFact::Sandbox { id: format!("sandbox-{name}"), pod: pod(name) };
    let container = OwnedFact::Container { id: format!("container-{name}"), name: "app".to_owned(), pod: pod(name) };
    News { source: Source::Runtime, facts: vec![sandbox, container] }
}

#[tokio::test]
async fn a_runtime_is_listed_when_it_comes_and_again_when_it_has_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let (news, mut told) = mpsc::channel(4);
    let _sources = Sources::spawn(&config(&socket, ""), &news, &metrics(), async {});
    let answers = Answers::default();
    lists(&answers, "web");
    lists(&answers, "api");
    let server = Server::listen(&socket, &answers).unwrap(); // later than the agent
    assert_eq!(next(&mut told).await, listed("web"));
    assert_eq!(server.asked::<ListContainersRequest>(LIST_CONTAINERS).len(), 1);

    drop(server);
    std::fs::remove_file(&socket).unwrap();
    let _server = Server::listen(&socket, &answers).unwrap();
    assert_eq!(next(&mut told).await, listed("api"));
}

#[tokio::test]
async fn a_container_is_asked_for_by_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let answers = Answers::default();
    lists(&answers, "web");
    let labels = [("name", "web"), ("namespace", "default"), ("uid", "uid-web")];
    let labels: HashMap<String, String> =
        labels.iter().map(|(key, value)| (format!("io.kubernetes.pod.{key}"), (*value).to_owned())).collect();
    let metadata = Some(ContainerMetadata { name: "sidecar".to_owned() });
    let status = ContainerStatus { id: "container-2".to_owned(), metadata, labels };
    answers.add(STATUS, &ContainerStatusResponse { status: Some(status) });
    let server = Server::listen(&socket, &answers).unwrap();
    let (news, mut told) = mpsc::channel(4);
    let sources = Sources::spawn(&config(&socket, ""), &news, &metrics(), async {});
    next(&mut told).await;

    assert!(sources.ask(Question::Container { id: "container-2".to_owned() }));
    let fact = OwnedFact::Container { id: "container-2".to_owned(), name: "sidecar".to_owned(), pod: pod("web") };
    assert_eq!(next(&mut told).await, News { source: Source::Runtime, facts: vec![fact] });
    let asked = server.asked::<ContainerStatusRequest>(STATUS);
    assert_eq!(asked, [ContainerStatusRequest { container_id: "container-2".to_owned() }]);
}

#[tokio::test]
async fn too_many_questions_are_refused_and_none_is_asked_before_the_probes_are_settled() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let answers = Answers::default();
    lists(&answers, "web");
    let server = Server::listen(&socket, &answers).unwrap();
    let (news, mut told) = mpsc::channel(4);
    let (settle, settled) = tokio::sync::oneshot::channel::<()>();
    let sources = Sources::spawn(&config(&socket, ""), &news, &metrics(), async { drop(settled.await) });
    let taken = (0..100).filter(|number| sources.ask(Question::Container { id: number.to_string() })).count();
    assert_eq!(taken, 64);
    tokio::task::yield_now().await;
    assert_eq!(server.asked::<ListContainersRequest>(LIST_CONTAINERS), []);
    settle.send(()).unwrap();
    assert_eq!(next(&mut told).await, listed("web"));
}

#[tokio::test]
async fn a_runtime_that_is_not_to_be_asked_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let (news, mut told) = mpsc::channel(4);
    let sources = Sources::spawn(&config(&socket, "enrich: {runtime: off}"), &news, &metrics(), async {});
    assert!(sources.ask(Question::Container { id: "container-web".to_owned() }), "nothing is lost by not asking");
    drop(news);
    assert_eq!(told.recv().await, None, "no task holds the queue");
}
