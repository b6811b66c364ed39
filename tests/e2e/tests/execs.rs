//! What a real containerd starts on the host for a pod: seen, told of the right call, and nothing of the pod's own processes.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use spanlet::api::{Entry, EntryKind, PodTimeline};
use spanlet::capture::record::Record;
use spanlet_e2e::Turn;
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::execs as process_check;
use spanlet_node::kubelet::{Kubelet, PodSpec, RunningPod, Tracing};
use spanlet_node::runtime::Runtime;
use spanlet_node::upstream::{Keep, Upstream};

/// In the arguments of a pod's processes, and in the runtime's environment.
const CANARY: &str = "canary-77d0";

/// All that containerd 1.6 starts on the host for pods with this CNI configuration.
const PROGRAMS: [&str; 5] = ["bridge", "containerd-shim-runc-v2", "host-local", "loopback", "runc"];

/// From the end of a process to the timeline that tells it.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_runtime_starts_is_seen_and_what_pods_run_is_not() {
    let Some(_turn) = Turn::take().await else { return };
    if let Some(reason) = Runtime::unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let environment = canaries_in_environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let runtime = Runtime::start_with_environment(&environment).unwrap();
    let upstream = Upstream::start(Keep::Ids).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let events = directory.path().join("events");
    let ports = Ports::free().unwrap();
    let mut config = agent::config(&ports, &runtime.socket(), &upstream.endpoint());
    config["capture"]["dump_events"] = json!(events);
    config["log"] = json!({"level": "trace"});
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();

    let tracing = Tracing::new(Some(&ports.otlp_endpoint()), "test-node").unwrap();
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await.unwrap();
    let web = live(&kubelet, "web", false).await;
    let host = live(&kubelet, "host", true).await;
    kubelet.flush_spans().unwrap();

    let web_timeline = ended_timeline(&agent, "web").await;
    let host_timeline = ended_timeline(&agent, "host").await;
    assert_pod_with_network(&web_timeline, &web);
    assert_pod_of_the_node(&host_timeline, &host);
    let status = agent.status().await.unwrap();
    for kind in ["exec", "exit"] {
        assert_eq!(status.events.seen[kind], status.events.delivered[kind], "{kind}: {:?}", status.events);
    }
    assert_eq!(status.events.seen["exec"], executed(&events).len() as u64);

    let calls: Value = agent.get("/api/v1/calls").await.unwrap();
    let metrics = agent.metrics().await.unwrap();
    assert!(agent.stop().await.unwrap().success(), "{}", agent.log());
    let programs: BTreeSet<String> = executed(&events).into_iter().collect();
    assert_eq!(programs, PROGRAMS.map(str::to_owned).into());
    let timelines = format!("{} {}", json!(web_timeline), json!(host_timeline));
    let places = [
        ("the kernel's events", std::fs::read(&events).unwrap(), "K8S_POD_NAME=web"),
        ("the log", agent.log().into_bytes(), "spanlet"),
        ("the timelines", timelines.into_bytes(), "CNI_COMMAND=ADD"),
        ("the calls", calls.to_string().into_bytes(), "RunPodSandbox"),
        ("the metrics", metrics.into_bytes(), "spanlet_calls_total"),
    ];
    for (place, bytes, always_there) in &places {
        assert!(contains(bytes, always_there), "{place}: the search finds nothing, not even {always_there}");
        assert!(!contains(bytes, CANARY), "{place} hold what a pod or the runtime keeps to itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_told_as_it_was() {
    let Some(_turn) = Turn::take().await else { return };
    process_check::check("auto").await.unwrap();
}

/// A shim outlives the runtime that started it, so only its control group tells whose it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_older_than_the_agent_is_followed() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let go = directory.path().join("go");
    let service = match Service::start(&socket, &go) {
        Ok(service) => service,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let events = directory.path().join("events");
    let ports = Ports::free().unwrap();
    let mut config = agent::config(&ports, &socket, "http://127.0.0.1:1");
    config["capture"]["dump_events"] = json!(events);
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();
    std::fs::write(&go, "").unwrap();
    let seen = async {
        while !executed(&events).iter().any(|program| program == "echo") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TOLD_WITHIN, seen).await.unwrap_or_else(|_| panic!("not followed:\n{}", agent.log()));
    drop(service);
    assert!(agent.stop().await.unwrap().success(), "{}", agent.log());
    let outside = "of-nobody";
    assert!(!contains(&std::fs::read(&events).unwrap(), outside), "a process outside of the service was followed");
}

/// Processes in a control group as systemd makes it for a service: one that listens, and one whose parent is gone.
struct Service {
    listens: Child,
    group: PathBuf,
}

impl Service {
    /// Waits for `go` in a shim and in a process that is none, then executes something in each.
    fn start(socket: &Path, go: &Path) -> Result<Self, String> {
        /// `PROC_PID_INIT_INO` (linux/proc_ns.h)
        const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
        const SCRIPT: &str = r#"
            wait_and_say='until [ -e "$1" ] || [ $((turn += 1)) -gt 1000 ]; do sleep 0.02; done; /bin/echo "$2"'
            (sh -c "$wait_and_say" sh "$2" of-nobody >/dev/null &)
            echo $$ >"$1/cgroup.procs" || exit 1
            (sh -c "$wait_and_say" sh "$2" of-the-shim >/dev/null &)
            echo ready
            exec sleep 60
        "#;
        let namespace = std::fs::read_link("/proc/self/ns/pid").map_err(|error| error.to_string())?;
        if namespace != Path::new(INITIAL_PID_NAMESPACE) {
            return Err("not in the initial pid namespace".to_owned());
        }
        let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(Path::new);
        let hierarchy = hierarchies.into_iter().find(|path| path.join("cgroup.procs").exists());
        let hierarchy = hierarchy.ok_or("no hierarchy of control groups that systemd would use")?;
        let group = hierarchy.join(format!("spanlet-test-{}.service", std::process::id()));
        std::fs::create_dir(&group).map_err(|error| format!("making {}: {error}", group.display()))?;
        let listener = UnixListener::bind(socket).unwrap();
        let spawned = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .args([&group, go])
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::piped())
            .spawn();
        let mut service = Self { listens: spawned.unwrap(), group };
        let mut ready = [0; 6];
        service.listens.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        Ok(service)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.listens.kill().unwrap();
        self.listens.wait().unwrap();
        // What it has started ends by itself once it may go, or after a while.
        while std::fs::remove_dir(&self.group).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Variables that come close to those that are copied. A piece of the environment has 255 bytes: the last one's second begins as
/// the name of a copied one does.
fn canaries_in_environment() -> [(&'static str, String); 4] {
    let filled = "x".repeat(255 - "FILLED=".len());
    [
        ("CNI", format!("{CANARY}-short")),
        ("cni_x", format!("{CANARY}-lower")),
        ("XCNI_X", format!("CNI_{CANARY}")),
        ("FILLED", format!("{filled}CNI_{CANARY}={CANARY}")),
    ]
}

/// Starts a pod whose processes carry the canary, executes something in it, and ends it.
async fn live(kubelet: &Kubelet, name: &str, in_node_namespaces: bool) -> RunningPod {
    let mut spec = PodSpec::new("default", name).unwrap();
    spec.in_node_namespaces = in_node_namespaces;
    spec.container.args = vec![format!("{CANARY}-argument")];
    spec.container.envs = vec![("CNI_OF_THE_POD".to_owned(), format!("{CANARY}-variable"))];
    let pod = kubelet.start_pod(&spec).await.unwrap();
    let script = format!("echo {CANARY}-exec; /bin/echo $CNI_OF_THE_POD");
    let told = kubelet.exec_sync(&pod, &["sh", "-c", &script]).await.unwrap();
    assert_eq!(told, format!("{CANARY}-exec\n{CANARY}-variable\n"));
    kubelet.stop_pod(&pod).await.unwrap();
    pod
}

/// The pod's timeline once all of its processes are over.
async fn ended_timeline(agent: &Agent, name: &str) -> PodTimeline {
    let path = format!("/api/v1/pods/default/{name}");
    let ended = async {
        loop {
            let timeline: PodTimeline = agent.get(&path).await.unwrap();
            let execs = || execs(&timeline);
            if execs().count() > 0 && execs().all(|exec| !exec.attributes.contains_key("running")) {
                return timeline;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TOLD_WITHIN, ended).await.unwrap_or_else(|_| panic!("{name} runs on:\n{}", agent.log()))
}

fn assert_pod_with_network(timeline: &PodTimeline, pod: &RunningPod) {
    assert_eq!(timeline.summary.uid, pod.spec.uid);
    let sandbox = "RunPodSandbox";
    let bridge = exec(timeline, sandbox, "cni bridge ADD");
    let ipam = exec(timeline, sandbox, "cni host-local ADD");
    assert_eq!((&ipam.attributes["parent_pid"], ipam.depth), (&bridge.attributes["pid"], bridge.depth + 1));
    exec(timeline, sandbox, "cni loopback ADD");
    assert_eq!(bridge.attributes["argv"], json!(["/usr/lib/cni/bridge"]));
    for plugin in [bridge, ipam] {
        let told = plugin.attributes["cni"].to_string();
        for variable in ["CNI_COMMAND=ADD", "CNI_IFNAME=eth0", "K8S_POD_NAMESPACE=default", "K8S_POD_NAME=web"] {
            assert!(told.contains(variable), "{variable} is not in {told}");
        }
        assert!(told.contains(&format!("CNI_CONTAINERID={}", pod.sandbox_id)), "{told}");
    }

    let starter = exec(timeline, sandbox, "exec containerd-shim-runc-v2 start");
    let shim = exec(timeline, sandbox, "exec containerd-shim-runc-v2");
    let create = exec(timeline, sandbox, "exec runc create");
    let init = exec(timeline, sandbox, "exec runc init");
    for (child, parent) in [(shim, starter), (create, shim), (init, create)] {
        assert_eq!(child.attributes["parent_pid"], parent.attributes["pid"], "{} of {}", child.name, parent.name);
        assert_eq!(child.depth, parent.depth + 1, "{} of {}", child.name, parent.name);
    }
    assert_eq!(shim.attributes["outlives_call"], true);
    exec(timeline, "StopPodSandbox", "cni bridge DEL");
    exec(timeline, "StopPodSandbox", "cni host-local DEL");
    assert_container(timeline, pod);
}

/// Without a network of its own there is no CNI plugin to tell whose the sandbox is: the answer of RunPodSandbox does.
fn assert_pod_of_the_node(timeline: &PodTimeline, pod: &RunningPod) {
    assert_eq!(timeline.summary.uid, pod.spec.uid);
    assert!(execs(timeline).all(|exec| !exec.name.starts_with("cni ")));
    let shim = exec(timeline, "RunPodSandbox", "exec containerd-shim-runc-v2");
    assert!(shim.attributes["argv"].to_string().contains(&pod.sandbox_id));
    let init = exec(timeline, "RunPodSandbox", "exec runc init");
    assert_eq!(init.attributes["parent_pid"], exec(timeline, "RunPodSandbox", "exec runc create").attributes["pid"]);
    assert_container(timeline, pod);
}

/// What every container's start and end takes, and that its processes are told as they were.
fn assert_container(timeline: &PodTimeline, pod: &RunningPod) {
    for name in ["exec runc create", "exec runc start"] {
        let exec = exec(timeline, "StartContainer", name);
        assert_eq!(exec.attributes["container_id"], json!(pod.container_id), "{name}");
    }
    for exec in execs(timeline) {
        let attributes = &exec.attributes;
        assert_eq!(attributes["exit_code"], 0, "{exec:?}");
        assert!(exec.start_unix_nano < exec.end_unix_nano && attributes.contains_key("cpu_ns"), "{exec:?}");
    }
    let create = exec(timeline, "StartContainer", "exec runc create");
    let cpu_ns = create.attributes["cpu_ns"].as_u64().unwrap();
    assert!((1_000_000..1_000_000_000).contains(&cpu_ns), "runc create took {cpu_ns} ns of a processor");
}

fn execs(timeline: &PodTimeline) -> impl Iterator<Item = &Entry> {
    timeline.entries.iter().filter(|entry| entry.kind == EntryKind::Exec)
}

/// The one process of this name that started within the call of this method.
fn exec<'a>(timeline: &'a PodTimeline, method: &str, name: &str) -> &'a Entry {
    let call = timeline.entries.iter().find(|entry| entry.name.ends_with(&format!("/{method}"))).unwrap();
    let within = call.start_unix_nano..=call.end_unix_nano;
    let of_call = || execs(timeline).filter(|exec| within.contains(&exec.start_unix_nano));
    let mut found = of_call().filter(|exec| exec.name == name);
    let names: Vec<_> = of_call().map(|exec| &exec.name).collect();
    let exec = found.next().unwrap_or_else(|| panic!("{method} started {names:?}, and not {name}"));
    assert!(found.next().is_none(), "{method} started {name} more than once: {names:?}");
    exec
}

/// The programs in the kernel's exec records, in order.
fn executed(events: &Path) -> Vec<String> {
    let bytes = std::fs::read(events).unwrap();
    let mut rest = bytes.as_slice();
    let mut programs = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (record, more) = more.split_at(u32::from_le_bytes(*length) as usize);
        let record = Record::parse(record).unwrap();
        if record.kind.label() == "exec" {
            let path = record.data.split(|byte| *byte == 0).next().unwrap_or_default();
            let path = String::from_utf8(path.to_vec()).unwrap();
            programs.push(path.rsplit('/').next().unwrap_or_default().to_owned());
        }
        rest = more;
    }
    programs
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
