//! The agent as a DaemonSet runs it: a process of its own, a service account's files where kubelet mounts them, the API
//! server and the node's name in its environment. A mount namespace of the process's own leaves the machine untouched.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::agent::{request_of, task_of, texts, value};
use crate::objects::{NODE, pod, running, uid};
use crate::server::Server;
use crate::upstream::Upstream;

/// The agent's own pace: it makes a new client after five failures, some 15 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mounts what is in `$1` as a service account, where nobody else sees it, and becomes the agent.
const IN_A_POD: &str = "
mount -t tmpfs none /var/run
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
mount --bind \"$1\" /var/run/secrets/kubernetes.io/serviceaccount
shift
exec \"$@\"";

/// An API server, a service account for it, an upstream; the agent is started when they are as they should be.
struct Node {
    server: Server,
    account: ServiceAccount,
    upstream: Upstream,
    folder: tempfile::TempDir,
}

/// A running agent. It ends when this is dropped.
struct Agent {
    _process: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// A projected volume as kubelet writes it: files are links into `..data`, a link that is replaced to change them all at once.
struct ServiceAccount {
    folder: PathBuf,
    versions: u32,
}

// === impl Node ===

impl Node {
    /// `None`, said aloud, where this process may not make mount namespaces.
    async fn start() -> Option<Self> {
        let mut probe = unshare();
        let made = probe.args(["mount", "-t", "tmpfs", "none", "/mnt"]).output().await;
        let refusal = match made {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(refusal) = refusal {
            println!("skipped: no mount namespace: {refusal}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_tls().await;
        server.state().token = Some("first".to_owned());
        let account = ServiceAccount::new(folder.path(), "first", AUTHORITY);
        Some(Self { server, account, upstream: Upstream::start().await, folder })
    }

    fn run(&self, names: &[&str]) {
        for name in names {
            let mut pod = pod(name);
            pod["status"] = running(name);
            self.server.put("pods", pod);
        }
    }

    fn agent(&self) -> Agent {
        let config = self.folder.path().join("config.yaml");
        let text = format!(
            "receive: {{grpc_listen: '127.0.0.1:0', http_listen: null}}\nadmin: {{listen: null}}\ncapture: {{mode: 'off'}}\n\
             enrich: {{runtime: 'off'}}\nexport: {{endpoint: 'http://{}', batch_delay: 1ms}}\n",
            self.upstream.address
        );
        std::fs::write(&config, text).unwrap();
        let mut command = unshare();
        command.args(["sh", "-ec", IN_A_POD, "sh"]).arg(&self.account.folder);
        command.arg(env!("CARGO_BIN_EXE_spanlet")).args(["run", "--config"]).arg(&config);
        let address = self.server.address;
        command.env("KUBERNETES_SERVICE_HOST", address.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", address.port().to_string());
        command.env("NODE_NAME", NODE);
        Agent::start(&mut command)
    }

    /// The tokens that the pods were asked for with, each change once.
    fn tokens(&self) -> Vec<String> {
        let requests = self.server.requests().into_iter().map(|(_, request)| request);
        let of_pods = requests.filter(|request| request.path == "/api/v1/pods");
        let mut tokens: Vec<String> = of_pods.filter_map(|request| request.authorization).collect();
        tokens.dedup();
        tokens
    }

    /// What upstream gets of a span of the pod's container, and the attributes of its resource.
    async fn span_of(&self, agent: &Agent, pod: &str) -> [Vec<(String, String)>; 2] {
        let mut client = TraceServiceClient::connect(format!("http://{}", agent.receiver().await)).await.unwrap();
        client.export(request_of("containerd", vec![task_of(pod)])).await.unwrap();
        let mut arrived: ExportTraceServiceRequest = self.upstream.next().await;
        let mut arrived = arrived.resource_spans.remove(0);
        [texts(&arrived.scope_spans.remove(0).spans.remove(0).attributes), texts(&arrived.resource.unwrap().attributes)]
    }

    /// Sends spans of the pod until one comes out with its name.
    async fn until_known(&self, agent: &Agent, pod: &str) {
        let known = async {
            loop {
                let [span, _] = self.span_of(agent, pod).await;
                if value(&span, "k8s.pod.name") == Some(pod) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let known = tokio::time::timeout(PATIENCE, known).await;
        assert!(known.is_ok(), "{pod} is not known:\n{}", agent.text());
    }
}

/// A command in a mount namespace of its own, of a user who may mount there.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    command.args(if is_root { &["--mount"][..] } else { &["--mount", "--user", "--map-root-user"] });
    command.kill_on_drop(true).stdin(Stdio::null()).env("LC_ALL", "C");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

// === impl Agent ===

impl Agent {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(line);
            }
        });
        Self { _process: process, log }
    }

    /// Where it takes spans.
    async fn receiver(&self) -> String {
        let line = self.until_said("grpc: Some(").await;
        line.split("grpc: Some(").nth(1).unwrap().split(')').next().unwrap().to_owned()
    }

    async fn until_said(&self, words: &str) -> String {
        let said = async {
            loop {
                if let Some(line) = self.said(words).pop() {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("{words:?} was not said:\n{}", self.text()))
    }

    fn said(&self, words: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }

    /// What was said of the API, by whomever.
    fn warnings(&self) -> Vec<String> {
        self.said("WARN").into_iter().filter(|line| line.contains("kube")).collect()
    }

    fn text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

// === impl ServiceAccount ===

const AUTHORITY: &str = include_str!("tls/authority.pem");
const DATA: &str = "..data";

impl ServiceAccount {
    fn new(parent: &Path, token: &str, authority: &str) -> Self {
        let folder = parent.join("service-account");
        std::fs::create_dir(&folder).unwrap();
        let mut account = Self { folder, versions: 0 };
        account.write(token, authority);
        for name in ["token", "ca.crt", "namespace"] {
            symlink(Path::new(DATA).join(name), account.folder.join(name)).unwrap();
        }
        account
    }

    /// Replaces all files at once, and takes the old ones away, as kubelet does.
    fn write(&mut self, token: &str, authority: &str) {
        let old = std::fs::read_link(self.folder.join(DATA)).ok();
        self.versions += 1;
        let version = format!("..2026_11_27_10_00_00.{}", self.versions);
        let folder = self.folder.join(&version);
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in [("token", token), ("ca.crt", authority), ("namespace", "spanlet")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let new = self.folder.join("..data_tmp");
        symlink(&version, &new).unwrap();
        std::fs::rename(&new, self.folder.join(DATA)).unwrap();
        if let Some(old) = old {
            std::fs::remove_dir_all(self.folder.join(old)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_a_pod_finds_its_server_its_token_and_its_node() {
    let Some(node) = Node::start().await else { return };
    node.run(&["web"]);
    let agent = node.agent();
    node.until_known(&agent, "web").await;
    agent.until_said("the node's pods are known").await;
    let [span, resource] = node.span_of(&agent, "web").await;
    assert_eq!(value(&span, "k8s.pod.uid"), Some(uid("web").as_str()));
    assert_eq!(value(&span, "k8s.container.name"), Some("app"));
    assert_eq!(value(&resource, "k8s.node.name"), Some(NODE));
    assert_eq!(value(&resource, "k8s.node.uid"), Some(uid(NODE).as_str()));
    let selector = format!("spec.nodeName={NODE}");
    for (_, request) in node.server.requests() {
        assert_eq!(request.authorization.as_deref(), Some("Bearer first"));
        let of_pods = request.path == "/api/v1/pods";
        assert_eq!(request.query("fieldSelector"), of_pods.then_some(selector.as_str()));
    }
    assert_eq!(agent.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_kubelet_has_replaced_is_taken_when_the_old_one_is_refused() {
    let Some(mut node) = Node::start().await else { return };
    node.run(&["old"]);
    let agent = node.agent();
    node.until_known(&agent, "old").await;
    node.account.write("second", AUTHORITY);
    node.server.state().token = Some("second".to_owned());
    node.server.end_watches();
    agent.until_said("does not know the agent's credentials").await;
    node.run(&["new"]); // not before, since the old watch might still tell of it
    node.until_known(&agent, "new").await;
    assert_eq!(node.tokens(), ["Bearer first", "Bearer second"]);
    assert_eq!(agent.said("does not know the agent's credentials").len(), 1, "{}", agent.text());
    let shown = ["first", "second"].map(|token| agent.said(token).len());
    assert_eq!(shown, [0, 0], "no token is logged");
}

/// kubelet replaces a token when a fifth of its life is left; the old one is good until then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "one minute"]
async fn a_token_that_kubelet_has_replaced_is_taken_before_the_old_one_expires() {
    let Some(mut node) = Node::start().await else { return };
    node.run(&["old"]);
    let agent = node.agent();
    node.until_known(&agent, "old").await;
    node.account.write("second", AUTHORITY);
    node.server.state().token = None; // both are good
    tokio::time::sleep(Duration::from_secs(61)).await;
    node.server.state().token = Some("second".to_owned());
    node.server.end_watches();
    while node.tokens().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.run(&["new"]);
    node.until_known(&agent, "new").await;
    assert_eq!(node.tokens(), ["Bearer first", "Bearer second"]);
    assert_eq!(agent.warnings(), Vec::<String>::new(), "nothing was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_told_and_gets_no_token() {
    let Some(mut node) = Node::start().await else { return };
    node.run(&["web"]);
    // Not the server's authority, but a certificate too.
    node.account.write("first", include_str!("tls/server.pem"));
    let agent = node.agent();
    let said = agent.until_said("new pods are known from calls and spans alone").await;
    assert!(said.contains("invalid peer certificate: UnknownIssuer"), "{said}");
    assert_eq!(node.server.requests(), [], "no token is shown to a stranger");
    let [span, resource] = node.span_of(&agent, "web").await;
    assert_eq!((value(&span, "k8s.pod.name"), value(&resource, "k8s.node.name")), (None, Some(NODE)), "forwarded");

    node.account.write("first", AUTHORITY);
    node.until_known(&agent, "web").await;
    assert_eq!(agent.said("new pods are known from calls and spans alone").len(), 1, "{}", agent.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_told_once_each_and_missed_alone() {
    let Some(node) = Node::start().await else { return };
    node.run(&["web"]);
    node.server.state().forbidden = vec!["/api/v1/nodes", "/api/v1/pods"];
    let agent = node.agent();
    agent.until_said("the agent may not get its node: the node's uid and labels are not known").await;
    let said = agent.until_said("the agent may not list and watch pods: new pods are known from calls and spans").await;
    assert!(said.ends_with("error=\"Forbidden (403)\""), "{said}"); // as the API server puts it
    let asked = || node.server.requests().iter().filter(|(_, request)| request.path == "/api/v1/pods").count();
    while asked() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [span, resource] = node.span_of(&agent, "web").await;
    assert_eq!((value(&span, "k8s.pod.name"), value(&resource, "k8s.node.name")), (None, Some(NODE)), "forwarded");

    node.server.state().forbidden = vec!["/api/v1/nodes"];
    node.until_known(&agent, "web").await;
    assert_eq!(value(&node.span_of(&agent, "web").await[1], "k8s.node.uid"), None);
    assert_eq!(agent.warnings().len(), 2, "{}", agent.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_service_account_says_so_and_forwards() {
    let Some(node) = Node::start().await else { return };
    node.run(&["web"]);
    std::fs::remove_file(node.account.folder.join(DATA)).unwrap();
    let agent = node.agent();
    let said = agent.until_said("new pods are known from calls and spans alone").await;
    assert!(said.contains("reading the service account of this pod"), "{said}");
    let [span, resource] = node.span_of(&agent, "web").await;
    assert_eq!((value(&span, "k8s.pod.name"), value(&resource, "k8s.node.name")), (None, Some(NODE)));
    assert_eq!(node.server.requests(), []);
}
