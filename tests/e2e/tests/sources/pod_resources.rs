//! kubelet's pod-resources service as a source.

use std::path::Path;
use std::time::Duration;

use spanlet::config::Config;
use spanlet::enrich::sources::Sources;
use spanlet::enrich::{News, OwnedFact, OwnedPodName, Question, Source};
use spanlet_node::stand_in::{Answers, Server};
use spanlet_proto::pod_resources::{
    ContainerDevices, ContainerResources, DynamicResource, ListPodResourcesRequest, ListPodResourcesResponse,
    PodResources,
};
use tokio::sync::mpsc;

use crate::{metrics, next};

const LIST: &str = "/v1.PodResourcesLister/List";

fn config(folder: &Path, more: &str) -> Config {
    let text = format!("capture: {{sockets: [{{kind: pod-resources, path: '{}/*'}}]}}\n{more}", folder.display());
    Config::parse(&text, |_| None).unwrap()
}

/// What kubelet lists while the pod `train` has these.
fn list(devices: &[&str], claims: &[&str]) -> ListPodResourcesResponse {
    let device_ids = devices.iter().map(|&id| id.to_owned()).collect();
    let claim = |&name: &&str| DynamicResource { claim_name: name.to_owned(), claim_namespace: "ml".to_owned() };
    let container = ContainerResources {
        name: "app".to_owned(),
        devices: vec![ContainerDevices { resource_name: "vendor.com/gpu".to_owned(), device_ids }],
        dynamic_resources: claims.iter().map(claim).collect(),
    };
    let pod = PodResources { name: "train".to_owned(), namespace: "ml".to_owned(), containers: vec![container] };
    ListPodResourcesResponse { pod_resources: vec![pod] }
}

fn device(id: &str) -> Question {
    Question::Device { id: id.to_owned() }
}

fn train() -> OwnedPodName {
    OwnedPodName { namespace: "ml".to_owned(), name: "train".to_owned(), uid: String::new() }
}

#[tokio::test]
async fn kubelet_is_asked_again_until_it_knows_all() {
    let folder = tempfile::tempdir().unwrap();
    let answers = Answers::default();
    answers.add(LIST, &list(&["gpu-0"], &[]));
    answers.add(LIST, &list(&["gpu-0"], &["claim-a"]));
    let server = Server::listen(&folder.path().join("kubelet.sock"), &answers).unwrap();
    let (news, mut told) = mpsc::channel(4);
    let sources = Sources::spawn(&config(folder.path(), ""), &news, &metrics(), async {});
    let claim = Question::Claim { namespace: "ml".to_owned(), name: "claim-a".to_owned() };
    assert!(sources.ask(device("gpu-0")) && sources.ask(claim));
    let device = OwnedFact::Device { id: "gpu-0".to_owned(), pod: train() };
    assert_eq!(next(&mut told).await, News { source: Source::Runtime, facts: vec![device] });
    let claim = OwnedFact::ClaimName { namespace: "ml".to_owned(), name: "claim-a".to_owned(), pod: train() };
    assert_eq!(next(&mut told).await, News { source: Source::Runtime, facts: vec![claim] });
    assert_eq!(server.asked::<ListPodResourcesRequest>(LIST).len(), 2);
}

#[tokio::test]
async fn a_socket_that_is_not_there_yet_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (news, mut told) = mpsc::channel(4);
    let sources = Sources::spawn(&config(folder.path(), ""), &news, &metrics(), async {});
    assert!(sources.ask(device("gpu-0")));
    tokio::time::sleep(Duration::from_secs(1)).await; // the first try is over
    let answers = Answers::default();
    answers.add(LIST, &list(&["gpu-0"], &[]));
    let _server = Server::listen(&folder.path().join("kubelet.sock"), &answers).unwrap();
    let fact = OwnedFact::Device { id: "gpu-0".to_owned(), pod: train() };
    assert_eq!(next(&mut told).await.facts, [fact]);
}

#[tokio::test]
async fn kubelet_is_not_asked_if_it_is_not_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let (news, mut told) = mpsc::channel(4);
    let sources = Sources::spawn(&config(folder.path(), "enrich: {pod_resources: off}"), &news, &metrics(), async {});
    assert!(sources.ask(device("gpu-0")), "nothing is lost by not asking");
    drop(news);
    assert_eq!(told.recv().await, None, "no task holds the queue");
}
