//! Spans of ours, from calls and processes made for the purpose.

mod execs;
mod phases;
mod plugins;

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use spanlet_otlp::TraceRequest;

use super::*;
use crate::batch;
use crate::call::{Naming, Peer, Points, Socket, Status, StatusSource, Subject, Traceparent};
use crate::pod::{Container, Pod};

const SECOND_NS: u64 = 1_000_000_000;
/// When everything here happens, Unix nanoseconds; in the middle of a minute.
const START_NS: u64 = 1_700_000_030 * SECOND_NS;
const SYNC_SPAN: [u8; 8] = [0x5c; 8];
const SAMPLED: u8 = 1;

fn synthesizer(config: &str) -> Synthesizer {
    Synthesizer::new(&Config::parse(config, |_| None).unwrap(), "boot-1")
}

fn owner(pod: &str, source: &'static str) -> Owner {
    let pod = Pod {
        namespace: "default".to_owned(),
        name: pod.to_owned(),
        uid: format!("uid-{pod}"),
        attributes: vec![("k8s.deployment.name".to_owned(), "shop".to_owned())],
    };
    Owner { pod: Arc::new(pod), container: None, source }
}

fn with_container(mut owner: Owner, id: &str) -> Owner {
    owner.container = Some(Arc::new(Container { id: id.to_owned(), name: "app".to_owned() }));
    owner
}

/// A successful call that began `after_ms` after [`START_NS`] and took `took_ms`, of which each phase was a quarter.
fn call(kind: SocketKind, method: &str, stream: u32, after_ms: u64, took_ms: u64) -> Call {
    let at = |ms: u64| START_NS + ms * 1_000_000;
    let point = |quarter: u64| Some(at(after_ms) + took_ms * 250_000 * quarter);
    Call {
        connection: 7,
        stream,
        socket: Arc::new(Socket { kind, path: "/run/plugin.sock".to_owned() }),
        method: Some(Arc::from(method)),
        naming: Naming::Wire,
        guess: None,
        traceparent: None,
        status: Some(Status { code: 0, source: StatusSource::Wire }),
        lost_track: false,
        streaming: false,
        started_ns: at(after_ms),
        ended_ns: at(after_ms + took_ms),
        points: Points {
            request_written_ns: point(0),
            request_read_ns: point(1),
            response_started_ns: point(2),
            response_written_ns: point(3),
            response_read_ns: point(4),
        },
        timeout_ns: None,
        subject: Subject::Unknown,
        response_id: None,
        client: Peer::default(),
        server: Peer::default(),
        owner: None,
    }
}

/// A CRI call of pod `web` in trace `trace`, with flags as in `traceparent`.
fn cri(method: &str, trace: u8, flags: u8, stream: u32, after_ms: u64, took_ms: u64) -> Call {
    let method = format!("runtime.v1.RuntimeService/{method}");
    let span_id = [trace, 0, 0, 0, 0, 0, 0, stream as u8];
    Call {
        traceparent: Some(Traceparent { trace_id: [trace; 16], span_id, flags }),
        owner: Some(owner("web", "wire")),
        ..call(SocketKind::Cri, &method, stream, after_ms, took_ms)
    }
}

fn started(synthesizer: &mut Synthesizer, call: &Call) {
    let call = Call { status: None, ended_ns: call.started_ns, points: Points::default(), ..call.clone() };
    synthesizer.call(&CallEvent::Started(Box::new(call)));
}

fn finished(synthesizer: &mut Synthesizer, call: &Call) {
    synthesizer.call(&CallEvent::Finished(Box::new(call.clone())));
}

/// Passes the client span of a CRI call, joined to it and a child of [`SYNC_SPAN`].
fn joined(synthesizer: &mut Synthesizer, call: &Call) {
    let traceparent = call.traceparent.unwrap();
    let name = call.method.as_deref().unwrap();
    let mut span = NewSpan::new(
        traceparent.trace_id,
        traceparent.span_id,
        name,
        spanlet_otlp::SpanKind::Client,
        call.started_ns,
        call.ended_ns,
    );
    span.parent(SYNC_SPAN);
    let mut request = NewRequest::new("kubelet", "");
    request.push(&span);
    let mut batch = Batch::new(batch::Source::Grpc, TraceRequest::parse(request.encode()).unwrap());
    batch.calls[0] = Some(Arc::new(call.clone()));
    batch.owners[0] = call.owner.clone();
    synthesizer.batch(&batch);
}

/// The spans made since the last time.
fn made(synthesizer: &mut Synthesizer) -> Vec<Span> {
    let Some(made) = synthesizer.take() else { return Vec::new() };
    let request = ExportTraceServiceRequest::decode(made.request).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let spans: Vec<Span> = scopes.flat_map(|scope| scope.spans).collect();
    assert_eq!(made.counts.iter().map(|(_, count)| *count).sum::<u64>(), spans.len() as u64);
    spans
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn text(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}
