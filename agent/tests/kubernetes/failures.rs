//! What goes wrong between a node and its API server, and what must not come of it.

use std::time::Duration;

use spanlet::enrich::sources::kubernetes::Pace;

use crate::agent::{Agent, PACE, config, value};
use crate::objects::{NODE, pod, running};
use crate::server::Server;
use crate::wire::Request;

/// A server with the pods, all running, and an agent that knows them.
async fn known(names: &[&str]) -> (Server, Agent, tempfile::TempDir) {
    let server = Server::start().await;
    start_pods(&server, names);
    let (mut agent, folder) = start(&server, PACE);
    for name in names {
        agent.until_known(name).await;
    }
    agent.until_counted("listed", 1).await;
    (server, agent, folder)
}

fn start(server: &Server, pace: Pace) -> (Agent, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    (Agent::start(config(server.kubeconfig(folder.path(), &token)), pace), folder)
}

fn start_pods(server: &Server, names: &[&str]) {
    for name in names {
        server.put("pods", pod(name));
        server.put_status("default", name, running(name));
    }
}

fn of_pods(server: &Server) -> Vec<Request> {
    let requests = server.requests().into_iter().map(|(_, request)| request);
    requests.filter(|request| request.path == "/api/v1/pods").collect()
}

async fn until_watching(server: &Server, agent: &mut Agent, watches: usize) {
    let counts = |_: &mut Agent| of_pods(server).iter().filter(|request| request.is_watch()).count() >= watches;
    agent.until("a watch", counts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_gone_is_listed_again() {
    for by_status in [false, true] {
        let (mut server, mut agent, _folder) = known(&["stays", "goes"]).await;
        until_watching(&server, &mut agent, 1).await;
        server.stop().await;
        server.delete("default", "goes");
        start_pods(&server, &["comes"]);
        server.compact();
        server.state().gone_by_status = by_status;
        server.listen().await;
        agent.until_known("comes").await;
        agent.until_counted("listed", 2).await;
        assert_eq!(agent.counted("gone"), 1);
        assert_eq!((agent.counted("expired"), agent.counted("listed")), (1, 2), "by status: {by_status}");
        assert_eq!(value(&agent.span_of("goes"), "k8s.pod.name"), Some("goes"));
        assert_eq!(agent.enricher.counts().pods_held, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bookmark_is_where_the_next_watch_begins() {
    let (server, mut agent, _folder) = known(&["web"]).await;
    until_watching(&server, &mut agent, 1).await;
    let version = server.bookmark();
    server.end_watches();
    until_watching(&server, &mut agent, 2).await;
    let requests = of_pods(&server);
    let last = requests.last().unwrap();
    assert_eq!(last.query("resourceVersion"), Some(version.to_string().as_str()));
    assert_eq!(last.query("allowWatchBookmarks"), Some("true"));
    assert_eq!((agent.counted("listed"), agent.counted("failed")), (1, 0), "the end of a watch is no failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for_and_a_silent_one_is_asked_again() {
    let server = Server::start().await;
    start_pods(&server, &["web"]);
    server.state().delay = Duration::from_millis(300);
    let (mut agent, _folder) = start(&server, PACE);
    agent.until_known("web").await;
    assert_eq!(agent.counted("failed"), 0);

    server.state().delay = Duration::from_secs(600);
    let (mut agent, _folder) = start(&server, Pace { answer_within: Duration::from_millis(50), ..PACE });
    agent.until_counted("failed", 6).await; // of both tasks: neither waits for ever
    server.state().delay = Duration::ZERO;
    agent.until_known("web").await;
    agent.until_counted("node", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_grow_while_the_server_is_broken() {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_millis(160);
    let server = Server::start().await;
    server.state().broken = Some(503);
    let (mut agent, _folder) = start(&server, Pace { first_pause: FIRST, longest_pause: LONGEST, ..PACE });
    let asked = |server: &Server| -> Vec<tokio::time::Instant> {
        server.requests().iter().filter(|(_, request)| request.path == "/api/v1/pods").map(|(at, _)| *at).collect()
    };
    agent.until("tries", |_| asked(&server).len() >= 7).await;
    let at = asked(&server);
    for (try_number, pair) in at.windows(2).take(6).enumerate() {
        let whole = (FIRST * (1 << try_number)).min(LONGEST);
        assert!(pair[1] - pair[0] >= whole / 2, "try {try_number} came after {:?}", pair[1] - pair[0]);
    }
    server.state().broken = None;
    start_pods(&server, &["web"]);
    agent.until_known("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_read_again() {
    let server = Server::start().await;
    server.state().token = Some("first".to_owned());
    start_pods(&server, &["old"]);
    let (mut agent, folder) = start(&server, PACE);
    agent.until_known("old").await;

    server.state().token = Some("second".to_owned());
    server.end_watches();
    agent.until_counted("unauthorized", 2).await; // the file is not written yet
    std::fs::write(folder.path().join("token"), "second").unwrap();
    start_pods(&server, &["new"]);
    agent.until_known("new").await;
    let used: Vec<_> = of_pods(&server).into_iter().filter_map(|request| request.authorization).collect();
    assert_eq!(used.first().map(String::as_str), Some("Bearer first"));
    assert_eq!(used.last().map(String::as_str), Some("Bearer second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_comes_later_is_used() {
    let server = Server::start().await;
    start_pods(&server, &["web"]);
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(folder.path().join("kubeconfig")), PACE);
    agent.until_counted("failed", 3).await;
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    server.kubeconfig(folder.path(), &token);
    agent.until_known("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_certificate_of_the_cluster_s_authority_is_taken() {
    let server = Server::start_tls().await;
    start_pods(&server, &["web"]);
    let folder = tempfile::tempdir().unwrap();
    let (token, authority) = (folder.path().join("token"), folder.path().join("authority.pem"));
    std::fs::write(&token, "first").unwrap();
    let kubeconfig = server.kubeconfig(folder.path(), &token);
    // Not the server's authority, but a certificate too.
    std::fs::write(&authority, include_str!("tls/server.pem")).unwrap();
    let mut agent = Agent::start(config(kubeconfig), PACE);
    agent.until_counted("failed", 4).await;
    assert_eq!(server.requests(), [], "no token is shown to a stranger");

    std::fs::write(&authority, include_str!("tls/authority.pem")).unwrap();
    agent.until_known("web").await;
    assert_eq!(of_pods(&server)[0].authorization.as_deref(), Some("Bearer first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_only_read_and_select_this_node() {
    let (server, mut agent, _folder) = known(&["web"]).await;
    until_watching(&server, &mut agent, 1).await;
    server.compact();
    server.end_watches();
    agent.until_counted("listed", 2).await;
    agent.until_counted("node", 1).await;
    let selector = format!("spec.nodeName={NODE}");
    for (_, request) in server.requests() {
        assert_eq!(request.method, "GET", "list, watch and get are all that is allowed");
        match request.path.as_str() {
            "/api/v1/pods" => assert_eq!(request.query("fieldSelector"), Some(selector.as_str()), "{request:?}"),
            path => assert_eq!(path, format!("/api/v1/nodes/{NODE}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_pods_than_any_node_has_are_left_out() {
    let server = Server::start().await;
    (0..1_030).for_each(|number| server.put("pods", pod(&format!("pod-{number}"))));
    let (mut agent, _folder) = start(&server, PACE);
    agent.until_counted("listed", 1).await;
    assert_eq!((agent.counted("told"), agent.counted("pod_ignored")), (1_024, 6));
}
