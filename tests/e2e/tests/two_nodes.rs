//! Two nodes on one kernel, as kind and minikube make them: equal socket paths, an agent on each.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use spanlet_e2e::{Turn, expected, recording};
use spanlet_node::programs;
use tokio::process::{Child, Command};

/// A network and a mount namespace; `$1` is where the node's socket lies, `$2` and the rest what to run.
const NODE: &str = r#"
set -e
ip link set lo up
mount -t tmpfs tmpfs "$1"
shift
exec "$@"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_agent_tells_of_another_nodes_calls() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let (first_calls, second_calls) = (directory.path().join("first"), directory.path().join("second"));
    let first = start_node(&run, "k134-c17", "3", &first_calls);
    let second = start_node(&run, "k134-c22-notrace", "8", &second_calls);
    let (first, second) = tokio::join!(first.wait_with_output(), second.wait_with_output());
    for output in [first.unwrap(), second.unwrap()] {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    assert_eq!(methods(&first_calls, true), expected_methods("k134-c17"));
    assert_eq!(methods(&second_calls, false), expected_methods("k134-c22-notrace"));
}

fn start_node(run: &Path, name: &str, speed: &str, calls: &Path) -> Child {
    Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "slave", "--", "sh", "-c", NODE, "sh"])
        .arg(run)
        .arg(programs::find("spanlet-node").unwrap())
        .arg("replay")
        .arg(recording(name))
        .args(["--speed", speed, "--socket"])
        .arg(run.join("cri.sock"))
        .arg("--calls")
        .arg(calls)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The methods of the calls in a file, sorted; all calls must (or must not) carry a `traceparent`.
fn methods(path: &Path, traced: bool) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let calls = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut methods: Vec<_> = calls
        .map(|call| {
            assert_eq!(call["traceparent"].is_string(), traced, "{call}");
            call["method"].as_str().unwrap_or("unnamed").to_owned()
        })
        .collect();
    methods.sort();
    methods
}

fn expected_methods(name: &str) -> Vec<String> {
    let calls = expected::calls(&recording(name)).unwrap();
    let mut methods: Vec<_> = calls.into_iter().map(|call| call.method).collect();
    methods.sort();
    methods
}
