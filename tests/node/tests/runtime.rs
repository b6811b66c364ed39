//! The runtime driver against the machine's containerd.

use std::fs;
use std::path::{Path, PathBuf};

use spanlet_node::kubelet::{Kubelet, PodSpec, RunningPod, Tracing};
use spanlet_node::runtime::Runtime;

#[tokio::test]
async fn a_pod_lives_its_life_and_leaves_nothing_behind() {
    let Some(runtime) = runtime() else { return };
    let traces = Traces::of(&runtime);
    let (kubelet, pod) = started_pod(&runtime).await;

    let (sandboxes, containers) = kubelet.relist().await.unwrap();
    assert_eq!(sandboxes.len(), 1);
    assert_eq!(containers.iter().map(|container| &container.id).collect::<Vec<_>>(), [&pod.container_id]);
    assert_eq!(kubelet.exec_sync(&pod, &["echo", "hello"]).await.unwrap(), "hello\n");
    assert!(kubelet.exec_url(&pod, &["cat"]).await.unwrap().starts_with("http://127.0.0.1:"));
    assert!(pod.address.starts_with("10.88.0."), "{}", pod.address);

    kubelet.stop_pod(&pod).await.unwrap();
    let (sandboxes, containers) = kubelet.relist().await.unwrap();
    assert!(sandboxes.is_empty() && containers.is_empty());

    drop(runtime);
    traces.assert_gone();
}

#[tokio::test]
async fn a_runtime_that_is_dropped_takes_running_pods_with_it() {
    let Some(runtime) = runtime() else { return };
    let traces = Traces::of(&runtime);
    let (_kubelet, _pod) = started_pod(&runtime).await;
    assert!(!traces.processes().is_empty() && !traces.cgroups().is_empty());

    drop(runtime);
    traces.assert_gone();
}

fn runtime() -> Option<Runtime> {
    if let Some(reason) = Runtime::unavailable() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(Runtime::start().unwrap())
}

async fn started_pod(runtime: &Runtime) -> (Kubelet, RunningPod) {
    let tracing = Tracing::new(None, "test-node").unwrap();
    let kubelet = Kubelet::connect(&runtime.socket(), runtime.cgroup_parent(), tracing).await.unwrap();
    let pod = kubelet.start_pod(&PodSpec::new("default", "web").unwrap()).await.unwrap_or_else(|error| {
        panic!("{error:#}\n{}", runtime.log());
    });
    (kubelet, pod)
}

/// Where a runtime could be seen on the machine.
struct Traces {
    directory: PathBuf,
    name: String,
}

impl Traces {
    fn of(runtime: &Runtime) -> Self {
        let directory = runtime.socket().parent().unwrap().to_owned();
        Self { name: directory.file_name().unwrap().to_str().unwrap().to_owned(), directory }
    }

    /// Command lines that name the runtime's directory: containerd, shims.
    fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let commands = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        commands.filter(|command| command.contains(&self.name)).collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(Result::ok);
        let roots = hierarchies.map(|entry| entry.path()).chain([Path::new("/sys/fs/cgroup").to_owned()]);
        roots.map(|root| root.join(&self.name)).filter(|path| path.exists()).collect()
    }

    fn assert_gone(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        assert!(!self.directory.exists());
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&self.name));
        assert!(!Path::new("/sys/class/net/spanlet0").exists());
    }
}
