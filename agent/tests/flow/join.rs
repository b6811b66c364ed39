//! Calls that were seen, and the spans that follow them through the agent.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use spanlet::api::{CallEntry, PodTimeline};
use spanlet::call::{
    Body, Call, CallEvent, Guess, Naming, Peer, Points, Socket, SocketKind, Status, StatusSource, Subject, Traceparent,
};
use spanlet::capture::Event;

use crate::support::{agent, client, get, ledger_at_rest, spans};
use crate::upstream::Upstream;

const RUN_POD_SANDBOX: &str = "runtime.v1.RuntimeService/RunPodSandbox";
const SECOND_NS: u64 = 1_000_000_000;

/// A whole RunPodSandbox call of pod `default/web`, whose client span is number `span` of [`spans`].
pub(crate) fn run_pod_sandbox(span: u64) -> Call {
    let started_ns = 1_700_000_000 * SECOND_NS;
    Call {
        connection: 77,
        stream: 1,
        socket: Arc::new(Socket { kind: SocketKind::Cri, path: "/run/containerd/containerd.sock".to_owned() }),
        method: Some(RUN_POD_SANDBOX.into()),
        naming: Naming::Wire,
        guess: None,
        traceparent: Some(Traceparent {
            trace_id: u128::from(span).to_be_bytes(),
            span_id: span.to_be_bytes(),
            flags: 1,
        }),
        status: Some(Status { code: 0, source: StatusSource::Wire }),
        lost_track: false,
        streaming: false,
        started_ns,
        ended_ns: started_ns + SECOND_NS,
        points: Points {
            request_written_ns: Some(started_ns),
            request_read_ns: Some(started_ns + 1_000),
            response_started_ns: Some(started_ns + SECOND_NS - 3_000),
            response_written_ns: Some(started_ns + SECOND_NS - 2_000),
            response_read_ns: Some(started_ns + SECOND_NS),
        },
        timeout_ns: None,
        subject: Subject::Sandbox {
            name: "web".to_owned(),
            uid: "0b5f4d5e-0000-4000-8000-000000000001".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        },
        response_id: Some("ab".repeat(32)),
        client: Peer { pid: Some(10), container_id: None },
        server: Peer { pid: Some(20), container_id: None },
        owner: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_and_its_span_become_one() {
    let upstream = Upstream::start().await;
    let agent = agent(&format!("{}\ncorrelate: {{phase_spans: false}}", upstream.export(""))).await;
    let call = run_pod_sandbox(5);
    let running = Call { status: None, ended_ns: call.started_ns, response_id: None, ..call.clone() };
    for event in [CallEvent::Started(Box::new(running)), CallEvent::Finished(Box::new(call))] {
        agent.observed().try_send(Event::Call(event)).unwrap();
    }
    // At once, as a span that follows its call closely would.
    let mut request = spans(5, 1);
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    span.name = RUN_POD_SANDBOX.to_owned();
    span.kind = SpanKind::Client as i32;
    client(&agent).await.export(request).await.unwrap();
    upstream.spans(1).await;
    ledger_at_rest(&agent, 1).await;

    let span = upstream.last_span();
    let value = |key: &str| {
        let found = span.attributes.iter().find(|attribute| attribute.key == key);
        found.and_then(|attribute| attribute.value.clone()?.value)
    };
    assert_eq!(value("spanlet.call.request_wait_ns"), Some(Value::IntValue(1_000)));
    assert_eq!(value("spanlet.call.response_send_ns"), Some(Value::IntValue(1_000)));
    assert_eq!(value("k8s.pod.name"), Some(Value::StringValue("web".to_owned())));
    assert_eq!(value("server.address"), Some(Value::StringValue("/run/containerd/containerd.sock".to_owned())));

    let metrics = agent.metrics().render();
    for line in [
        "spanlet_joins_total{result=\"joined_client\"} 1".to_owned(),
        "spanlet_identity_total{result=\"owned\"} 1".to_owned(),
        "spanlet_calls_total{socket_kind=\"cri\",naming=\"wire\"} 1".to_owned(),
        format!("spanlet_call_phase_seconds_count{{phase=\"handling\",rpc_method=\"{RUN_POD_SANDBOX}\"}} 1"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }

    let admin = agent.addresses().admin.unwrap();
    let calls: Vec<CallEntry> = serde_json::from_slice(&get(admin, "/api/v1/calls").await.body).unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].pod.as_ref().map(|pod| pod.name.as_str()), Some("web"));
    let pod: PodTimeline = serde_json::from_slice(&get(admin, "/api/v1/pods/default/web").await.body).unwrap();
    assert!(pod.entries.iter().any(|entry| entry.name == RUN_POD_SANDBOX), "{pod:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_call_whose_end_was_lost_is_counted_as_that_and_takes_no_time() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    let guess = Some(Guess { methods: &[RUN_POD_SANDBOX], body: Body::Metadata });
    let unnamed = Call { method: None, naming: Naming::Unknown, guess, ..run_pod_sandbox(5) };
    let lost = Call { status: None, lost_track: true, points: Points::default(), ..unnamed.clone() };
    for call in [Call { stream: 7, ..unnamed }, lost] {
        agent.observed().try_send(Event::Call(CallEvent::Finished(Box::new(call)))).unwrap();
    }
    let admin = agent.addresses().admin.unwrap();
    let calls: Vec<CallEntry> = serde_json::from_slice(&get(admin, "/api/v1/calls").await.body).unwrap();
    let told: Vec<_> =
        calls.iter().map(|call| (call.method.as_deref(), call.status, call.over, call.lost_track)).collect();
    assert_eq!(told, [(None, Some(0), true, false), (None, None, true, true)]);
    for call in &calls {
        assert_eq!(call.guess.as_ref().unwrap().methods, [RUN_POD_SANDBOX]);
    }
    let metrics = agent.metrics().render();
    for line in [
        "spanlet_calls_total{socket_kind=\"cri\",naming=\"unknown\"} 2",
        "spanlet_call_duration_seconds_count{socket_kind=\"cri\",rpc_method=\"\",rpc_status_code=\"OK\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("rpc_status_code=\"unknown\""), "{metrics}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_calls_does_not_hold_up_spans() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    let mut lost = 0;
    for stream in 0..20_000 {
        let call = Call { stream, traceparent: None, ..run_pod_sandbox(1) };
        lost += u32::from(agent.observed().try_send(Event::Call(CallEvent::Finished(Box::new(call)))).is_err());
    }
    client(&agent).await.export(spans(0, 10)).await.unwrap();
    upstream.spans(10).await;
    let ledger = ledger_at_rest(&agent, 10).await;
    assert_eq!(ledger.exported, 10);
    assert!(lost < 20_000, "some were taken in");
    agent.stop().await;
}
