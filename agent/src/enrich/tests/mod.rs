//! Rules of identity, on calls and spans made for the purpose.

mod any_order;
mod bounds;
mod calls;
mod hold;
mod links;
mod spans;

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use prost::Message as _;
use spanlet_otlp::TraceRequest;

use super::*;
use crate::batch::{self, Batch};
use crate::call::{
    Call, CallEvent, Naming, Peer, Points, Socket, SocketKind, Status, StatusSource, Subject, Traceparent,
};

/// An enricher, and what is put through it.
struct Node {
    enricher: Enricher,
    /// Numbers calls, in the order in which they start.
    calls: u32,
}

impl Node {
    fn new() -> Self {
        Self::with(config::Enrich::default())
    }

    fn with(config: config::Enrich) -> Self {
        Self { enricher: Enricher::new(config), calls: 0 }
    }

    /// A CRI call from its start to its end; returns the finished call.
    fn cri(&mut self, trace: u8, method: &str, subject: Subject, response_id: Option<&str>) -> Call {
        let method = format!("runtime.v1.{method}");
        self.call(SocketKind::Cri, Some(trace), &method, subject, response_id)
    }

    fn call(
        &mut self,
        kind: SocketKind,
        trace: Option<u8>,
        method: &str,
        subject: Subject,
        response_id: Option<&str>,
    ) -> Call {
        self.calls += 1;
        let started_ns = u64::from(self.calls) * 1_000;
        let mut call = Call {
            connection: 1,
            stream: self.calls,
            socket: Arc::new(Socket { kind, path: String::new() }),
            method: Some(Arc::from(method)),
            naming: Naming::Wire,
            guess: None,
            traceparent: trace.map(|trace| Traceparent {
                trace_id: [trace; 16],
                span_id: u64::from(self.calls).to_be_bytes(),
                flags: 1,
            }),
            status: None,
            lost_track: false,
            streaming: false,
            started_ns,
            ended_ns: started_ns,
            points: Points::default(),
            timeout_ns: None,
            subject,
            response_id: None,
            client: Peer::default(),
            server: Peer::default(),
            owner: None,
        };
        self.enricher.call(&mut CallEvent::Started(Box::new(call.clone())));
        call.ended_ns += 500;
        call.status = Some(Status { code: 0, source: StatusSource::Wire });
        call.response_id = response_id.map(str::to_owned);
        let mut event = CallEvent::Finished(Box::new(call));
        self.enricher.call(&mut event);
        match event {
            CallEvent::Finished(call) | CallEvent::Started(call) => *call,
        }
    }

    /// RunPodSandbox, CreateContainer and StartContainer of a pod with the container `app`, in one trace.
    fn start_pod(&mut self, trace: u8, name: &str) {
        let (sandbox, container) = (id(name, "sandbox"), id(name, "container"));
        self.cri(trace, "RuntimeService/RunPodSandbox", metadata(name), Some(&sandbox));
        self.cri(trace, "RuntimeService/CreateContainer", Subject::SandboxId(sandbox), Some(&container));
        self.cri(trace, "RuntimeService/StartContainer", Subject::ContainerId(container), None);
    }

    /// Passes a request; returns its spans as they leave, with their owners.
    fn pass<const N: usize>(&mut self, service: &str, spans: [Span; N]) -> Vec<(Span, Option<Owner>)> {
        self.pass_joined(service, spans.map(|span| (span, None)))
    }

    /// As [`Self::pass`], each span with the call it was joined to.
    fn pass_joined<const N: usize>(
        &mut self,
        service: &str,
        spans: [(Span, Option<Call>); N],
    ) -> Vec<(Span, Option<Owner>)> {
        self.pass_with_resource(service, spans.into()).1
    }

    fn pass_with_resource(
        &mut self,
        service: &str,
        spans: Vec<(Span, Option<Call>)>,
    ) -> (Resource, Vec<(Span, Option<Owner>)>) {
        let (spans, calls): (Vec<Span>, Vec<Option<Call>>) = spans.into_iter().unzip();
        let resource = Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut batch = Batch::new(batch::Source::Grpc, TraceRequest::parse(request.into()).unwrap());
        batch.calls = calls.into_iter().map(|call| call.map(Arc::new)).collect();
        self.enricher.batch(&mut batch);
        let mut after = ExportTraceServiceRequest::decode(batch.request.encode(&batch.additions)).unwrap();
        let mut after = after.resource_spans.remove(0);
        let spans = after.scope_spans.remove(0).spans.into_iter().zip(batch.owners);
        (after.resource.unwrap(), spans.collect())
    }
}

// === pods ===

/// The uid of the pod of this name; all pods here are in the namespace `default`.
fn uid(name: &str) -> String {
    format!("00000000-0000-4000-8000-{:0>12}", name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// An id of 64 digits that only this pod and purpose have.
fn id(name: &str, purpose: &str) -> String {
    format!("{:0>64}", format!("{name}{purpose}").bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn metadata(name: &str) -> Subject {
    Subject::Sandbox { name: name.to_owned(), uid: uid(name), namespace: "default".to_owned(), attempt: 0 }
}

fn sandbox(name: &str) -> Subject {
    Subject::SandboxId(id(name, "sandbox"))
}

fn container(name: &str) -> Subject {
    Subject::ContainerId(id(name, "container"))
}

fn pod_of(owner: Option<&Owner>) -> Option<&str> {
    owner.map(|owner| {
        assert!(owner.pod.uid.is_empty() || owner.pod.uid == uid(&owner.pod.name), "{:?}", owner.pod);
        owner.pod.name.as_str()
    })
}

fn pods(passed: &[(Span, Option<Owner>)]) -> Vec<Option<&str>> {
    passed.iter().map(|(_, owner)| pod_of(owner.as_ref())).collect()
}

// === spans ===

const ROOT: u64 = 0;

fn new_span(trace: u8, span_id: u64, parent: u64, kind: span::SpanKind, name: &str) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: span_id.to_be_bytes().to_vec(),
        parent_span_id: if parent == ROOT { Vec::new() } else { parent.to_be_bytes().to_vec() },
        name: name.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: span_id * 1_000,
        end_time_unix_nano: span_id * 1_000 + 500,
        ..Span::default()
    }
}

fn client(trace: u8, span_id: u64, parent: u64, method: &str) -> Span {
    new_span(trace, span_id, parent, span::SpanKind::Client, &format!("runtime.v1.{method}"))
}

fn server(trace: u8, span_id: u64, parent: u64, method: &str) -> Span {
    new_span(trace, span_id, parent, span::SpanKind::Server, &format!("runtime.v1.{method}"))
}

fn internal(trace: u8, span_id: u64, parent: u64, name: &str) -> Span {
    new_span(trace, span_id, parent, span::SpanKind::Internal, name)
}

/// A root span of kubelet's `syncPod` family.
fn sync(trace: u8, span_id: u64, name: &str, pod: &str) -> Span {
    let attributes = [
        ("k8s.pod.uid", uid(pod)),
        ("k8s.pod", format!("default/{pod}")),
        ("k8s.pod.name", pod.to_owned()),
        ("k8s.namespace.name", "default".to_owned()),
    ];
    with(internal(trace, span_id, ROOT, name), attributes)
}

fn with<const N: usize>(mut span: Span, attributes: [(&str, String); N]) -> Span {
    span.attributes.extend(attributes.into_iter().map(|(key, value)| attribute(key, &value)));
    span
}

/// A log line, as containerd attaches it.
fn line(mut span: Span, text: &str) -> Span {
    span.events.push(span::Event { name: text.to_owned(), ..span::Event::default() });
    span
}

/// A log line, as CRI-O attaches it.
fn crio_line(mut span: Span, text: &str) -> Span {
    let attributes = vec![attribute("log.severity", "INFO"), attribute("log.message", text)];
    span.events.push(span::Event { name: "log".to_owned(), attributes, ..span::Event::default() });
    span
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// The values of all attributes of a span with this key.
fn values(span: &Span, key: &str) -> Vec<String> {
    values_in(&span.attributes, key)
}

fn value_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    values_in(attributes, key).pop()
}

fn values_in(attributes: &[KeyValue], key: &str) -> Vec<String> {
    let matching = attributes.iter().filter(|attribute| attribute.key == key);
    matching
        .filter_map(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(value) => Some(value.clone()),
            any_value::Value::BoolValue(value) => Some(value.to_string()),
            _ => None,
        })
        .collect()
}
