//! Rules of the join, one test each, on spans and calls made for the purpose.

use spanlet_otlp::TraceRequest;
use spanlet_otlp::build::{NewRequest, NewSpan};

use super::*;
use crate::batch::Source;
use crate::call::{Peer, Points, Socket, SocketKind, Subject, Traceparent};

const TRACE: [u8; 16] = [7; 16];
const CLIENT: [u8; 8] = [1; 8];
const SERVER: [u8; 8] = [2; 8];
const METHOD: &str = "runtime.v1.RuntimeService/StartContainer";

#[test]
fn both_spans_of_a_call_are_joined_to_it() {
    let mut correlator = with_calls([finished(call(CLIENT, 1))]);
    let mut batch = batch([client(CLIENT), server(SERVER, CLIENT)]);
    assert_eq!(correlator.correlate(&mut batch), []);
    assert!(batch.calls.iter().all(|call| call.as_ref().is_some_and(|call| call.stream == 1)));
    assert_eq!(outcomes(&correlator), [(Outcome::Client, 1), (Outcome::Server, 1)]);
    let whole = [("request_wait_ns", 100), ("handling_ns", 200), ("response_send_ns", 300), ("response_wait_ns", 400)];
    for (name, expected) in whole {
        assert_eq!([0, 1].map(|span| int(&batch, span, &phase(name))), [Some(expected); 2], "{name}");
    }
    let overhead = phase("client_overhead_ns");
    assert_eq!([0, 1].map(|span| int(&batch, span, &overhead)), [Some(5_000 - 1_000), None]);
    assert_eq!([0, 1].map(|span| address(&batch, span)), ["/run/cri.sock", "/run/cri.sock"]);
}

#[test]
fn a_call_that_still_runs_is_joined_with_what_is_known() {
    let mut running = call(CLIENT, 1);
    running.points = Points { request_written_ns: Some(1_000), ..Points::default() };
    let mut correlator = Correlator::new(Limits::default());
    correlator.observe(&CallEvent::Started(Box::new(running)));
    let mut batch = batch([client(CLIENT)]);
    correlator.correlate(&mut batch);
    assert!(batch.calls[0].is_some());
    assert_eq!(int(&batch, 0, &phase("request_wait_ns")), None);
    assert_eq!(address(&batch, 0), "/run/cri.sock");
}

#[test]
fn the_whole_call_replaces_what_was_known_while_it_ran() {
    let mut running = call(CLIENT, 1);
    running.points = Points::default();
    let mut correlator = Correlator::new(Limits::default());
    correlator.observe(&CallEvent::Started(Box::new(running)));
    correlator.observe(&finished(call(CLIENT, 1)));
    let mut batch = batch([client(CLIENT)]);
    correlator.correlate(&mut batch);
    assert_eq!(int(&batch, 0, &phase("request_wait_ns")), Some(100));
    assert_eq!(correlator.calls_held(), 1);
}

#[test]
fn attributes_that_are_there_stay() {
    let mut span = client(CLIENT);
    span.str("server.address", "unix:///theirs");
    span.int("spanlet.call.handling_ns", 1);
    let mut correlator = with_calls([finished(call(CLIENT, 1))]);
    let mut batch = batch([span]);
    correlator.correlate(&mut batch);
    let added = encoded(&batch);
    let values = |key: &str| added.span(0).attributes().filter(|(found, _)| *found == key).count();
    assert_eq!((values("server.address"), values("spanlet.call.handling_ns")), (1, 1));
    assert_eq!(address(&batch, 0), "unix:///theirs");
    assert_eq!(int(&batch, 0, &phase("handling_ns")), Some(1));
    assert_eq!(int(&batch, 0, &phase("response_send_ns")), Some(300));
}

#[test]
fn an_overhead_that_cannot_be_true_is_not_told() {
    let mut streaming = call([3; 8], 3);
    streaming.streaming = true;
    let mut longer_than_its_span = call([4; 8], 5);
    longer_than_its_span.points.response_read_ns = Some(1_000_000);
    let mut correlator = with_calls([finished(streaming), finished(longer_than_its_span)]);
    let mut batch = batch([client([3; 8]), client([4; 8])]);
    correlator.correlate(&mut batch);
    assert_eq!([0, 1].map(|span| int(&batch, span, &phase("client_overhead_ns"))), [None, None]);
}

#[test]
fn a_span_exported_twice_is_joined_twice_and_counted() {
    let mut correlator = with_calls([finished(call(CLIENT, 1))]);
    for _ in 0..2 {
        let mut batch = batch([client(CLIENT), server(SERVER, CLIENT)]);
        correlator.correlate(&mut batch);
        assert!(batch.calls.iter().all(Option::is_some));
    }
    assert_eq!(outcomes(&correlator), [(Outcome::Client, 1), (Outcome::Server, 1), (Outcome::Duplicate, 2)]);
}

#[test]
fn a_call_has_one_server_span() {
    let mut correlator = with_calls([finished(call(CLIENT, 1))]);
    let mut batch = batch([server(SERVER, CLIENT), server([9; 8], CLIENT)]);
    correlator.correlate(&mut batch);
    assert!(batch.calls[0].is_some() && batch.calls[1].is_none());
    assert_eq!(outcomes(&correlator), [(Outcome::Server, 1), (Outcome::Refused, 1)]);
}

#[test]
fn a_server_span_of_another_method_is_not_the_calls() {
    let mut other = NewSpan::new(TRACE, SERVER, "registry.v1.Images/Get", SpanKind::Server, 10_000, 15_000);
    other.parent(CLIENT);
    let mut correlator = with_calls([finished(call(CLIENT, 1))]);
    let mut batch = batch([other]);
    correlator.correlate(&mut batch);
    assert!(batch.calls[0].is_none());
    assert_eq!(outcomes(&correlator), [(Outcome::Refused, 1)]);
}

#[test]
fn what_has_no_call_is_told_apart() {
    let old = client([5; 8]);
    let mut new = NewSpan::new(TRACE, [6; 8], METHOD, SpanKind::Client, 10_000, 15_000);
    new.str("rpc.system.name", "grpc");
    let mut root = NewSpan::new(TRACE, SERVER, METHOD, SpanKind::Server, 10_000, 15_000);
    root.str("rpc.system", "grpc");
    let shim = NewSpan::new(TRACE, [8; 8], "containerd.task.v3.Task/Start", SpanKind::Client, 10_000, 15_000);
    let inner = NewSpan::new(TRACE, [9; 8], METHOD, SpanKind::Internal, 10_000, 15_000);
    let mut correlator = with_calls([]);
    let mut batch = batch([old, new, root, shim, inner]);
    correlator.correlate(&mut batch);
    assert!(batch.calls.iter().all(Option::is_none));
    assert_eq!(outcomes(&correlator), [(Outcome::Missed, 2), (Outcome::Unlinked, 1)]);
}

#[test]
fn of_two_calls_with_the_same_ids_the_first_keeps_them() {
    let mut correlator = with_calls([finished(call(CLIENT, 1)), finished(call(CLIENT, 3)), finished(call(CLIENT, 1))]);
    let mut batch = batch([client(CLIENT)]);
    correlator.correlate(&mut batch);
    assert_eq!(batch.calls[0].as_ref().map(|call| call.stream), Some(1));
    assert_eq!(correlator.counts().calls_refused, 1);
}

#[test]
fn a_joined_span_names_an_unnamed_call_once() {
    let unnamed = Call { method: None, naming: Naming::Unknown, ..call(CLIENT, 7) };
    let mut correlator = with_calls([finished(unnamed)]);
    let learned = correlator.correlate(&mut batch([server(SERVER, CLIENT), client(CLIENT)]));
    assert_eq!(learned, [Learned { connection: 4, stream: 7, method: Arc::from(METHOD) }]);
}

#[test]
fn a_name_learned_wrongly_is_told_again() {
    for (method, expected) in [("runtime.v1.RuntimeService/StopContainer", 1), (METHOD, 0)] {
        let named = Call { method: Some(Arc::from(method)), naming: Naming::Learned, ..call(CLIENT, 7) };
        let mut correlator = with_calls([finished(named)]);
        assert_eq!(correlator.correlate(&mut batch([client(CLIENT)])).len(), expected);
    }
}

#[test]
fn only_what_looks_like_a_method_names_a_call() {
    for (name, expected) in [
        (METHOD, true),
        ("csi.v1.Node/NodePublishVolume", true),
        ("/runtime.v1.RuntimeService/StartContainer", false),
        ("HTTP GET", false),
        ("service/Method", false),
        ("runtime.v1.RuntimeService/", false),
        ("GET /api/v1/pods", false),
        ("a.b/C/D", false),
        ("", false),
    ] {
        assert_eq!(method_of(name).is_some(), expected, "{name}");
    }
}

#[test]
fn a_full_table_forgets_the_oldest_call_and_counts_it() {
    let mut correlator = Correlator::new(Limits { max_calls: 2 });
    for number in 1..=3 {
        correlator.observe(&finished(call([number; 8], u32::from(number))));
    }
    assert_eq!((correlator.calls_held(), correlator.counts().calls_evicted), (2, 1));
    let mut batch = batch([client([1; 8]), client([3; 8])]);
    correlator.correlate(&mut batch);
    assert!(batch.calls[0].is_none() && batch.calls[1].is_some());
}

#[test]
fn calls_without_ids_are_not_kept() {
    let correlator = with_calls([finished(Call { traceparent: None, ..call(CLIENT, 1) })]);
    assert_eq!(correlator.calls_held(), 0);
}

#[test]
fn old_calls_are_forgotten_but_not_those_that_run() {
    const SECOND: u64 = 1_000_000_000;
    let at = |number: u64, second: u64| {
        let span_id = number.to_be_bytes();
        let mut call = call(span_id, number as u32);
        (call.started_ns, call.ended_ns) = (second * SECOND, second * SECOND);
        call
    };
    let mut correlator = Correlator::new(Limits::default());
    correlator.observe(&CallEvent::Started(Box::new(at(1, 1))));
    for number in 2..2_000 {
        correlator.observe(&finished(at(number, 1)));
    }
    assert_eq!(correlator.calls_held(), 1_999);
    // Ten minutes later, by 3,000 calls: what is old has gone, 1,024 stay in any case, and nothing was lost for want of room.
    for number in 2_000..5_000 {
        correlator.observe(&finished(at(number, 600)));
    }
    let mut batch = batch([client(1_u64.to_be_bytes()), client(2_u64.to_be_bytes()), client(4_999_u64.to_be_bytes())]);
    correlator.correlate(&mut batch);
    assert_eq!(batch.calls.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!((correlator.calls_held(), correlator.counts().calls_evicted), (3_001, 0));
}

#[test]
fn outcomes_have_distinct_labels() {
    let labels: std::collections::BTreeSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
    assert_eq!(labels.len(), Outcome::ALL.len());
}

// === makers ===

fn with_calls<const N: usize>(events: [CallEvent; N]) -> Correlator {
    let mut correlator = Correlator::new(Limits::default());
    events.into_iter().for_each(|event| correlator.observe(&event));
    correlator
}

fn finished(call: Call) -> CallEvent {
    CallEvent::Finished(Box::new(call))
}

fn call(span_id: [u8; 8], stream: u32) -> Call {
    Call {
        connection: 4,
        stream,
        socket: Arc::new(Socket { kind: SocketKind::Cri, path: "/run/cri.sock".to_owned() }),
        method: Some(Arc::from(METHOD)),
        naming: Naming::Wire,
        guess: None,
        traceparent: Some(Traceparent { trace_id: TRACE, span_id, flags: 1 }),
        status: None,
        lost_track: false,
        streaming: false,
        started_ns: 1_000,
        ended_ns: 2_000,
        points: Points {
            request_written_ns: Some(1_000),
            request_read_ns: Some(1_100),
            response_started_ns: Some(1_300),
            response_written_ns: Some(1_600),
            response_read_ns: Some(2_000),
        },
        timeout_ns: None,
        subject: Subject::Unknown,
        response_id: None,
        client: Peer::default(),
        server: Peer::default(),
        owner: None,
    }
}

fn client(span_id: [u8; 8]) -> NewSpan {
    let mut span = NewSpan::new(TRACE, span_id, METHOD, SpanKind::Client, 10_000, 15_000);
    span.str("rpc.system", "grpc");
    span
}

fn server(span_id: [u8; 8], parent: [u8; 8]) -> NewSpan {
    let mut span = NewSpan::new(TRACE, span_id, METHOD, SpanKind::Server, 10_000, 15_000);
    span.parent(parent);
    span.str("rpc.system", "grpc");
    span
}

fn batch<const N: usize>(spans: [NewSpan; N]) -> Batch {
    let mut request = NewRequest::new("test", "1");
    request.resource_str("service.name", "kubelet");
    spans.into_iter().for_each(|span| request.push(&span));
    Batch::new(Source::Grpc, TraceRequest::parse(request.encode()).unwrap())
}

fn encoded(batch: &Batch) -> TraceRequest {
    TraceRequest::parse(batch.request.encode(&batch.additions)).unwrap()
}

fn int(batch: &Batch, span: usize, key: &str) -> Option<i64> {
    encoded(batch).span(span).attribute(key).and_then(|value| value.as_int())
}

fn address(batch: &Batch, span: usize) -> String {
    let request = encoded(batch);
    request.span(span).attribute("server.address").and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

fn phase(name: &str) -> String {
    format!("spanlet.call.{name}")
}

/// The outcomes that occurred, in the order of the enum.
fn outcomes(correlator: &Correlator) -> Vec<(Outcome, u64)> {
    let counts = correlator.counts();
    Outcome::ALL.iter().map(|outcome| (*outcome, counts.of(*outcome))).filter(|(_, count)| *count > 0).collect()
}
