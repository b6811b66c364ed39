//! Spans that the agent makes itself: sent as all others, and in the same ledger.

use std::sync::Arc;

use spanlet::call::{CallEvent, Socket, SocketKind, Subject};
use spanlet::capture::Event;
use spanlet::pipeline::Pipeline;

use crate::join::run_pod_sandbox;
use crate::support::{agent, ledger_when};
use crate::upstream::Upstream;

const PUBLISH: &str = "csi.v1.Node/NodePublishVolume";
/// Of a slow call.
const PHASES: u64 = 4;

fn see_a_slow_call(agent: &Pipeline) {
    let event = CallEvent::Finished(Box::new(run_pod_sandbox(5)));
    agent.observed().try_send(Event::Call(event)).unwrap();
}

fn see_a_volume_published(agent: &Pipeline) {
    let mut call = run_pod_sandbox(5);
    let path = "/var/lib/kubelet/pods/0b5f4d5e-0000-4000-8000-000000000001/volumes/kubernetes.io~csi/v/mount";
    call.socket = Arc::new(Socket { kind: SocketKind::Csi, path: "/csi/csi.sock".to_owned() });
    (call.method, call.traceparent, call.response_id) = (Some(PUBLISH.into()), None, None);
    call.subject = Subject::Volume { id: "v".to_owned(), paths: vec![path.to_owned()] };
    agent.observed().try_send(Event::Call(CallEvent::Finished(Box::new(call)))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_our_own_are_sent_and_in_the_ledger() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    see_a_slow_call(&agent);
    see_a_volume_published(&agent); // in 2023: it has waited long enough
    upstream.spans(PHASES + 1).await;
    let ledger = ledger_when(&agent, |ledger| ledger.exported == PHASES + 1 && ledger.held == 0).await;
    assert!(ledger.balances() && ledger.synthesized == PHASES + 1 && ledger.received == 0, "{ledger:?}");
    let metrics = agent.metrics().render();
    for (kind, count) in [("phase", PHASES), ("plugin", 1)] {
        let line = format!("spanlet_spans_synthesized_total{{kind=\"{kind}\"}} {count}");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_they_stay_on_the_node() {
    let agent = agent("").await;
    see_a_slow_call(&agent);
    let ledger = ledger_when(&agent, |ledger| ledger.synthesized == PHASES && ledger.held == 0).await;
    assert_eq!(ledger.filtered.get("local"), Some(&PHASES));
    assert!(ledger.balances(), "{ledger:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_the_budget_has_no_room_for_are_counted() {
    let agent = agent("export: {endpoint: 'http://127.0.0.1:1', queue_bytes: 1}").await;
    see_a_slow_call(&agent); // fills the queue, which nobody empties
    see_a_slow_call(&agent);
    let ledger = ledger_when(&agent, |ledger| ledger.synthesized == 2 * PHASES).await;
    assert_eq!((ledger.held, ledger.dropped.get("no_room")), (PHASES, Some(&PHASES)), "{ledger:?}");
    assert!(ledger.balances());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_parent_is_sent_when_the_agent_stops() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    see_a_volume_published(&agent);
    let metrics = agent.metrics().clone();
    agent.stop().await;
    assert_eq!((metrics.spans().synthesized, metrics.spans().exported), (1, 1));
}
