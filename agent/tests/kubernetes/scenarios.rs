//! What must hold with any API server: run with the scripted one, and with the real one where it is there.

use crate::agent::{Agent, PACE, config, value};
use crate::cluster::Cluster;
use crate::objects::{pod, pod_on, running};
use crate::real::RealServer;
use crate::server::Server;

macro_rules! scenarios {
    ($($name:ident)+) => {
        mod scripted {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(super::Cluster::Scripted(super::Server::start().await)).await;
                }
            )+
        }

        mod real_api_server {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    if let Some(server) = super::RealServer::start().await {
                        super::$name(super::Cluster::Real(Box::new(server))).await;
                    }
                }
            )+
        }
    };
}

scenarios! {
    a_pod_is_followed_from_its_making_to_its_last_span
    pods_of_other_nodes_are_not_known
    what_happened_while_the_server_was_dead_is_made_up_for
    five_hundred_pods_come_in_pages
}

async fn a_pod_is_followed_from_its_making_to_its_last_span(cluster: Cluster) {
    let folder = tempfile::tempdir().unwrap();
    cluster.create(&pod("old")).await;
    cluster.set_status("old", &running("old")).await;
    let mut agent = Agent::start(config(cluster.kubeconfig(folder.path())), PACE);
    agent.until_known("old").await;

    cluster.create(&pod("web")).await;
    agent.until_counted("told", 2).await;
    cluster.set_status("web", &running("web")).await;
    agent.until_known("web").await;
    let told = agent.span_of("web");
    assert_eq!(value(&told, "k8s.pod.name"), Some("web"));
    assert_eq!(value(&told, "k8s.pod.uid"), Some(cluster.uid("web").await.as_str()));
    assert_eq!(value(&told, "k8s.namespace.name"), Some("default"));
    assert_eq!(value(&told, "k8s.container.name"), Some("app"));
    assert_eq!(value(&told, "k8s.pod.status.phase"), Some("Running"));
    assert_eq!(value(&told, "k8s.pod.label.app.kubernetes.io/name"), Some("shop"));
    assert_eq!(value(&told, "k8s.pod.label.other"), None, "not chosen");

    cluster.delete("web").await;
    agent.until_counted("gone", 1).await;
    assert_eq!(agent.span_of("web"), told, "the last spans of a pod come after it is gone");
    assert_eq!(value(&agent.span_of("old"), "k8s.pod.name"), Some("old"));
}

async fn pods_of_other_nodes_are_not_known(cluster: Cluster) {
    let folder = tempfile::tempdir().unwrap();
    cluster.create(&pod_on("node-2", "foreign")).await;
    cluster.create(&pod("own")).await;
    let mut agent = Agent::start(config(cluster.kubeconfig(folder.path())), PACE);
    agent.until_counted("listed", 1).await;
    cluster.create(&pod_on("node-2", "foreign-too")).await;
    cluster.create(&pod("own-too")).await;
    agent.until_counted("told", 2).await;
    assert_eq!(agent.enricher.counts().pods_held, 2);
}

async fn what_happened_while_the_server_was_dead_is_made_up_for(mut cluster: Cluster) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["stays", "goes"] {
        cluster.create(&pod(name)).await;
        cluster.set_status(name, &running(name)).await;
    }
    let mut agent = Agent::start(config(cluster.kubeconfig(folder.path())), PACE);
    agent.until_known("stays").await;
    agent.until_known("goes").await;
    let failed = agent.counted("failed");
    cluster.stop().await;
    agent.until_counted("failed", failed + 5).await;
    assert_eq!(value(&agent.span_of("stays"), "k8s.pod.name"), Some("stays"), "what is known stays known");

    cluster.start_again().await;
    cluster.delete("goes").await;
    cluster.create(&pod("comes")).await;
    cluster.set_status("comes", &running("comes")).await;
    agent.until_known("comes").await;
    agent.until_counted("gone", 1).await;
    assert_eq!(value(&agent.span_of("goes"), "k8s.pod.name"), Some("goes"), "its last spans are still to come");
}

async fn five_hundred_pods_come_in_pages(cluster: Cluster) {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..500 {
        let name = format!("pod-{number}");
        cluster.create(&pod(&name)).await;
        cluster.set_status(&name, &running(&name)).await;
    }
    if let Cluster::Scripted(server) = &cluster {
        server.state().page = 50; // a server may give less than it is asked for
    }
    let pace = match &cluster {
        Cluster::Scripted(_) => PACE,
        Cluster::Real(_) => spanlet::enrich::sources::kubernetes::Pace { page_pods: 50, ..PACE },
    };
    let mut agent = Agent::start(config(cluster.kubeconfig(folder.path())), pace);
    agent.until_counted("listed", 1).await;
    assert_eq!((agent.enricher.counts().pods_held, agent.counted("told")), (500, 500));
    assert_eq!(value(&agent.span_of("pod-499"), "k8s.pod.name"), Some("pod-499"));
    if let Cluster::Scripted(server) = &cluster {
        let requests = server.requests();
        let lists: Vec<_> =
            requests.iter().filter(|(_, request)| request.path == "/api/v1/pods" && !request.is_watch()).collect();
        let limits: Vec<_> = lists.iter().map(|(_, request)| request.query("limit")).collect();
        assert_eq!(limits, [Some("500"); 10]);
    }
}
