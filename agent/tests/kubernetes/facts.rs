//! What the API tells reaches spans and resources.

use opentelemetry_proto::tonic::trace::v1::{Span, span};
use serde_json::{Value, json};

use spanlet::config::Config;
use spanlet::pipeline::Pipeline;

use crate::agent::{Agent, PACE, PATIENCE, attribute, config, new_span, value};
use crate::objects::{NODE, owned, owner, pod, running, uid};
use crate::server::Server;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Node {
    server: Server,
    folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        Self { server: Server::start().await, folder: tempfile::tempdir().unwrap() }
    }

    /// Puts a pod that runs already.
    fn run(&self, mut pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        pod["status"] = running(&name);
        self.server.put("pods", pod);
    }

    fn agent(&self, change: impl FnOnce(&mut spanlet::config::Enrich)) -> Agent {
        let token = self.folder.path().join("token");
        std::fs::write(&token, "first").unwrap();
        let mut config = config(self.server.kubeconfig(self.folder.path(), &token));
        change(&mut config);
        Agent::start(config, PACE)
    }
}

fn of_deployment(name: &str, replica_set: &str) -> Value {
    let mut pod = owned(pod(name), "apps/v1", "ReplicaSet", replica_set);
    let hash = replica_set.rsplit_once('-').unwrap().1;
    pod["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_are_told_by_name() {
    let node = Node::start().await;
    node.run(of_deployment("web-1", "web-6d4cf56db6"));
    node.run(owned(pod("job-1"), "batch/v1", "Job", "backup-29921700"));
    let mut agent = node.agent(|_| {});
    agent.until_known("web-1").await;
    agent.until_known("job-1").await;
    let web = agent.span_of("web-1");
    assert_eq!(value(&web, "k8s.deployment.name"), Some("web"));
    assert_eq!(value(&web, "k8s.replicaset.name"), Some("web-6d4cf56db6"));
    assert_eq!(value(&web, "k8s.replicaset.uid"), Some(uid("web-6d4cf56db6").as_str()));
    assert_eq!(value(&web, "k8s.pod.qos_class"), Some("BestEffort"));
    let job = agent.span_of("job-1");
    assert_eq!(
        (value(&job, "k8s.cronjob.name"), value(&job, "spanlet.cronjob.source")),
        (Some("backup"), Some("job_name"))
    );
    let asked = node.server.requests().iter().any(|(_, request)| request.path.starts_with("/apis/"));
    assert!(!asked, "look-ups are not allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_asked_for_once_where_that_is_allowed() {
    let node = Node::start().await;
    let of = |name: &str, owners: Value| json!({"metadata": {"name": name, "namespace": "default", "uid": uid(name), "ownerReferences": owners}});
    node.server.put("replicasets", of("web-6d4cf56db6", json!([owner("apps/v1", "Deployment", "web-long-name")])));
    node.server.put("jobs", of("backup-29921700", json!([])));
    node.run(of_deployment("web-1", "web-6d4cf56db6"));
    node.run(of_deployment("web-2", "web-6d4cf56db6"));
    node.run(owned(pod("job-1"), "batch/v1", "Job", "backup-29921700"));
    node.run(of_deployment("gone-1", "gone-6d4cf56db6"));
    let mut agent = node.agent(|config| config.owner_lookups = true);
    agent.until_counted("listed", 1).await;
    for pod in ["web-1", "web-2"] {
        let told = agent.span_of(pod);
        assert_eq!(value(&told, "k8s.deployment.name"), Some("web-long-name"));
        assert_eq!(value(&told, "k8s.deployment.uid"), Some(uid("web-long-name").as_str()));
    }
    let job = agent.span_of("job-1");
    assert_eq!((value(&job, "k8s.job.name"), value(&job, "k8s.cronjob.name")), (Some("backup-29921700"), None));
    assert_eq!(value(&agent.span_of("gone-1"), "k8s.deployment.name"), Some("gone"), "not there any more: by name");
    let requests = node.server.requests();
    let asked = requests.iter().filter(|(_, request)| request.path.ends_with("/replicasets/web-6d4cf56db6")).count();
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_that_may_not_be_asked_for_are_told_by_name() {
    let node = Node::start().await;
    node.server.state().forbidden = vec!["/apis/"];
    (0..20).for_each(|number| node.run(of_deployment(&format!("web-{number}"), &format!("app{number}-6d4cf56db6"))));
    let mut agent = node.agent(|config| config.owner_lookups = true);
    agent.until_counted("listed", 1).await;
    assert_eq!(value(&agent.span_of("web-7"), "k8s.deployment.name"), Some("app7"));
    let requests = node.server.requests();
    let asked = requests.iter().filter(|(_, request)| request.path.starts_with("/apis/")).count();
    assert_eq!(asked, 1, "one refusal is enough for a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_beyond_the_limit_are_forgotten() {
    let node = Node::start().await;
    for number in 0..515 {
        let name = format!("app{number}-6d4cf56db6");
        let owners = json!([owner("apps/v1", "Deployment", &format!("deployment-{number}"))]);
        let metadata = json!({"name": name, "namespace": "default", "uid": uid(&name), "ownerReferences": owners});
        node.server.put("replicasets", json!({"metadata": metadata}));
        node.run(of_deployment(&format!("web-{number}"), &name));
    }
    let mut agent = node.agent(|config| config.owner_lookups = true);
    agent.until_counted("listed", 1).await;
    assert_eq!(agent.counted("owner_forgotten"), 3);
    assert_eq!(value(&agent.span_of("web-0"), "k8s.deployment.name"), Some("deployment-0"), "told before");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_attributes_are_counted() {
    let node = Node::start().await;
    let mut many = pod("web");
    for number in 0..60 {
        many["metadata"]["labels"][format!("l{number}")] = json!("v");
    }
    many["metadata"]["annotations"]["note"] = json!("n".repeat(1_000));
    node.run(many);
    let mut agent = node.agent(|config| {
        config.labels = vec!["l*".to_owned()];
        config.annotations = vec!["note".to_owned()];
    });
    agent.until_known("web").await;
    // Of phase, class, 60 labels and a note 2 KiB hold 30.
    assert_eq!((agent.counted("attribute_dropped"), agent.counted("value_cut")), (33, 0));
    let mut agent = node.agent(|config| config.annotations = vec!["note".to_owned()]);
    agent.until_known("web").await;
    assert_eq!(agent.counted("value_cut"), 1);
    assert_eq!(value(&agent.span_of("web"), "k8s.pod.annotation.note").map(str::len), Some(256));
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_change_nothing_are_not_told() {
    let node = Node::start().await;
    node.run(pod("web"));
    let mut agent = node.agent(|_| {});
    agent.until_known("web").await;
    let mut status = running("web");
    status["conditions"] = json!([{"type": "Ready", "lastProbeTime": "2026-11-23T00:00:09Z"}]);
    node.server.put_status("default", "web", status);
    node.run(pod("next"));
    agent.until_known("next").await;
    assert_eq!(agent.counted("told"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_told_on_every_resource() {
    let node = Node::start().await;
    node.server.state().forbidden = vec!["/api/v1/nodes"];
    let mut agent = node.agent(|_| {});
    agent.until_counted("forbidden", 2).await;
    assert_eq!(value(&agent.pass("kubelet", vec![new_span(1)]).0, "k8s.node.uid"), None);
    let labels = json!({"topology.kubernetes.io/zone": "zone-a", "other": "x"});
    node.server.put("nodes", json!({"metadata": {"name": NODE, "uid": uid(NODE), "labels": labels}}));
    node.server.state().forbidden.clear();
    agent.until_counted("node", 1).await;
    let (resource, _) = agent.pass("kubelet", vec![new_span(1)]);
    assert_eq!(value(&resource, "k8s.node.uid"), Some(uid(NODE).as_str()));
    assert_eq!(value(&resource, "k8s.node.label.topology.kubernetes.io/zone"), Some("zone-a"));
    assert_eq!(value(&resource, "k8s.node.label.other"), None);
    assert_eq!(value(&resource, "k8s.node.name"), Some(NODE));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_watches_if_it_is_told_where() {
    let node = Node::start().await;
    node.run(pod("web"));
    let token = node.folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let kubeconfig = node.server.kubeconfig(node.folder.path(), &token);
    for (access, watches) in [("auto", false), ("'off'", false), ("kubeconfig", true)] {
        let text = format!(
            "receive: {{grpc_listen: '127.0.0.1:0', http_listen: null}}\nadmin: {{listen: null}}\ncapture: {{mode: 'off'}}\n\
             enrich: {{node_name: {NODE}, kubernetes: {access}, kubeconfig: {}}}",
            kubeconfig.display()
        );
        let before = node.server.requests().len();
        let pipeline = Pipeline::start(&Config::parse(&text, |_| None).unwrap()).await.unwrap();
        if watches {
            let told = || pipeline.metrics().render().contains("spanlet_kubernetes_total{result=\"told\"} 1");
            let waiting = async {
                while !told() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, waiting).await.expect("the pod is told");
        }
        pipeline.stop().await;
        assert_eq!(node.server.requests().len() > before, watches, "{access}");
    }
}

fn sync_of(pod: &str, number: u8, name: &str) -> Span {
    let attributes =
        [("k8s.pod.uid", uid(pod)), ("k8s.pod.name", pod.to_owned()), ("k8s.namespace.name", "default".to_owned())];
    Span {
        name: name.to_owned(),
        kind: span::SpanKind::Internal as i32,
        attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        ..new_span(number)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_span_that_asked_for_a_pod_is_linked_from_its_syncs() {
    let node = Node::start().await;
    let mut traced = pod("web");
    traced["metadata"]["annotations"]["tracing.k8s.io/traceparent"] = json!(TRACEPARENT);
    node.run(traced);
    node.run(pod("plain"));
    let mut agent = node.agent(|_| {});
    agent.until_known("web").await;
    agent.until_known("plain").await;

    let mut linked = sync_of("web", 2, "syncPod");
    let ids = (hex("0af7651916cd43dd8448eb211c80319c"), hex("b7ad6b7169203331"));
    linked.links = vec![span::Link { trace_id: ids.0.clone(), span_id: ids.1.clone(), ..span::Link::default() }];
    let spans = vec![
        sync_of("web", 1, "syncPod"),
        linked,
        sync_of("web", 3, "syncTerminatingPod"),
        sync_of("plain", 4, "syncPod"),
    ];
    let (_, spans) = agent.pass("kubelet", spans);
    let links: Vec<Vec<_>> = spans
        .iter()
        .map(|span| span.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone())).collect())
        .collect();
    assert_eq!(links, [vec![ids.clone()], vec![ids], vec![], vec![]], "each link once");
    let traces: Vec<u8> = spans.iter().map(|span| span.trace_id[0]).collect();
    assert_eq!(traces, [1, 2, 3, 4], "no trace id is rewritten");
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}
