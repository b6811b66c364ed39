//! What the pods that the API tells cost in memory, and what a day without it does.

use std::process::Command;
use std::time::Duration;

use spanlet::enrich::sources::kubernetes::Pace;
use spanlet::enrich::{Enricher, Fact, PodName, Source};

use crate::agent::{Agent, PACE, config};
use crate::objects::{container, owned, pod, running, uid};
use crate::server::Server;

/// Set in a process that runs one test alone.
const ALONE: &str = "SPANLET_TEST_ALONE";

/// Whether this process runs nothing but the test of this name; if not, runs it in one that does.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let test = format!("memory::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", &test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    eprintln!("{}", text.lines().find(|line| line.contains("KiB")).unwrap_or_default());
    false
}

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_takes_less_than_four_kibibytes() {
    if !is_alone("a_pod_takes_less_than_four_kibibytes") {
        return;
    }
    const PODS: usize = 500;
    let server = Server::start().await;
    for number in 0..PODS {
        let name = format!("shop-frontend-6d4cf56db6-{number:05}");
        let mut pod = owned(pod(&name), "apps/v1", "ReplicaSet", "shop-frontend-6d4cf56db6");
        pod["metadata"]["labels"]["pod-template-hash"] = "6d4cf56db6".into();
        for label in 0..4 {
            pod["metadata"]["labels"][format!("app.kubernetes.io/label-{label}")] = "some-usual-value".into();
        }
        pod["status"] = running(&name);
        server.put("pods", pod);
    }
    server.state().page = 50;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let config = config(server.kubeconfig(folder.path(), &token));
    let mut agent = Agent::start(config.clone(), PACE);
    agent.until_counted("listed", 1).await;
    assert_eq!(agent.enricher.counts().pods_held, PODS);

    // Many stores of the same pods, so that what else happens in the process does not count.
    const STORES: usize = 20;
    let mut enrichers: Vec<Enricher> = (0..STORES).map(|_| Enricher::new(config.clone())).collect();
    let before = resident_bytes();
    for enricher in &mut enrichers {
        agent.told.iter().for_each(|news| enricher.news(news));
        for number in 0..PODS {
            let name = format!("shop-frontend-6d4cf56db6-{number:05}");
            let pod = PodName { namespace: "default", name: &name, uid: &uid(&name) };
            let sandbox = format!("{number:064x}");
            enricher.learn(&Fact::Sandbox { id: &sandbox, pod }, Source::Wire);
            assert!(enricher.owner_of(&container(&name)).is_some());
        }
    }
    let pod_bytes = resident_bytes().saturating_sub(before) / (STORES * PODS);
    eprintln!("{:.2} KiB a pod", pod_bytes as f64 / 1024.0);
    assert!((256..4096).contains(&pod_bytes), "{pod_bytes} bytes a pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_the_api_takes_no_memory() {
    if !is_alone("a_day_without_the_api_takes_no_memory") {
        return;
    }
    /// A day of pauses of 30 s.
    const FAILURES: u64 = 2_880;
    let pause = Duration::from_micros(500);
    let pace = Pace { first_pause: pause, longest_pause: pause, longest_pause_of_node: PACE.answer_within, ..PACE };
    let mut server = Server::start().await;
    for number in 0..50 {
        server.put("pods", pod(&format!("pod-{number}")));
    }
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let mut agent = Agent::start(config(server.kubeconfig(folder.path(), &token)), pace);
    agent.until_counted("listed", 1).await;
    server.stop().await;
    agent.until_counted("failed", 200).await; // what is made once has been made
    let before = resident_bytes();
    agent.until_counted("failed", 200 + FAILURES).await;
    let grown = resident_bytes().saturating_sub(before);
    eprintln!("{} KiB grown in {FAILURES} failures", grown >> 10);
    assert!(grown < 1 << 20, "{grown} bytes grown");

    server.delete("default", "pod-7");
    server.listen().await;
    agent.until_counted("gone", 1).await;
}
