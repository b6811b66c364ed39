//! Index, join and enrich a request while 250 pods are known: the CPU that spanlet spends on a span between receiving it
//! and encoding it. The bar is 0.4 µs a span.
//!
//! Every source has told what it tells on a real node: the wire the calls, the runtime its containers' names, the API the
//! workloads, chosen labels, class and phase, and the node's uid and zone. `bare` is the same without runtime and API.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use spanlet::batch::{Batch, Source};
use spanlet::call::{Call, CallEvent, Naming, Peer, Points, Socket, SocketKind, Subject, Traceparent};
use spanlet::config;
use spanlet::correlate::{Correlator, Limits};
use spanlet::enrich::{Enricher, Fact, PodName, Source as Told};
use spanlet_otlp::TraceRequest;

const PODS: u64 = 250;
/// As many as kubelet's and the runtimes' exporters send at once.
const SPANS: usize = 512;

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = identity
}
criterion_main!(benches);

fn identity(criterion: &mut Criterion<CpuTime>) {
    let mut bare = Node::start();
    let mut node = Node::start();
    node.tell();
    let mut group = criterion.benchmark_group("identity");
    group.throughput(Throughput::Elements(SPANS as u64));
    for (name, client) in [("kubelet", true), ("containerd", false)] {
        let request = node.request(client);
        group.bench_function(format!("{name}/index"), |bench| {
            bench.iter(|| black_box(TraceRequest::parse(black_box(request.clone())).expect("valid")));
        });
        group.bench_function(format!("{name}/index, join, enrich"), |bench| {
            bench.iter(|| black_box(node.pass(request.clone())));
        });
        group.bench_function(format!("{name}/bare"), |bench| {
            bench.iter(|| black_box(bare.pass(request.clone())));
        });
    }
    group.finish();
}

/// CPU time of this thread: the bar is on that, and other work on the machine does not count.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("less than a second"))
    }

    fn end(&self, started: Duration) -> Duration {
        self.start().saturating_sub(started)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A node with its pods started, whose calls are all known.
struct Node {
    correlator: Correlator,
    enricher: Enricher,
    calls: Vec<Call>,
}

impl Node {
    fn start() -> Self {
        let config = config::Enrich { node_name: Some("node-1".to_owned()), ..config::Enrich::default() };
        let mut node =
            Self { correlator: Correlator::new(Limits::default()), enricher: Enricher::new(config), calls: Vec::new() };
        let socket = Arc::new(Socket { kind: SocketKind::Cri, path: "/run/containerd/containerd.sock".to_owned() });
        for pod in 0..PODS {
            for (step, (method, subject, response)) in start_of_pod(pod).into_iter().enumerate() {
                let call = call(&socket, pod, step as u64, method, subject, response);
                let mut event = CallEvent::Finished(Box::new(call.clone()));
                node.enricher.call(&mut event);
                node.correlator.observe(&event);
                node.calls.push(call);
            }
        }
        node
    }

    /// What runtime and API tell.
    fn tell(&mut self) {
        let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let zone = "k8s.node.label.topology.kubernetes.io/zone";
        let attributes = [own("k8s.node.uid", &uid(PODS)), own(zone, "eu-west-1a")];
        self.enricher.learn(&Fact::Node { attributes: &attributes }, Told::Api);
        for pod in 0..PODS {
            let (name, uid) = (pod_name(pod), uid(pod));
            let named = PodName { namespace: "default", name: &name, uid: &uid };
            self.enricher.learn(&Fact::Container { id: &container(pod), name: "app", pod: named }, Told::Runtime);
            let set = format!("web-{}-6d4cf56db6", pod / 5);
            let attributes = [
                own("k8s.deployment.name", &format!("web-{}", pod / 5)),
                own("k8s.replicaset.name", &set),
                own("k8s.replicaset.uid", &uid),
                own("k8s.pod.qos_class", "Burstable"),
                own("k8s.pod.status.phase", "Running"),
                own("k8s.pod.label.app.kubernetes.io/name", "web"),
                own("k8s.pod.label.app.kubernetes.io/part-of", "shop"),
                own("k8s.pod.label.app.kubernetes.io/version", "1.27.3"),
            ];
            self.enricher.learn(&Fact::Attributes { pod_uid: &uid, attributes: &attributes }, Told::Api);
            let span =
                Traceparent { trace_id: scrambled(pod + (1 << 40)), span_id: span_id(pod + (1 << 40)), flags: 1 };
            self.enricher.learn(&Fact::Cause { pod_uid: &uid, span }, Told::Api);
        }
    }

    /// 512 spans of kubelet's side or the runtime's, of the kinds and sizes that they really send.
    fn request(&self, is_client: bool) -> Bytes {
        let spans = self.calls.iter().cycle().skip(500).take(SPANS).map(|call| span(call, is_client)).collect();
        let text = |value: &str| Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
        let service = KeyValue {
            key: "service.name".to_owned(),
            value: text(if is_client { "kubelet" } else { "containerd" }),
            ..KeyValue::default()
        };
        let resource = Resource { attributes: vec![service], ..Resource::default() };
        let scope = InstrumentationScope { name: "otelgrpc".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
        Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec())
    }

    fn pass(&mut self, bytes: Bytes) -> Batch {
        let mut batch = Batch::new(Source::Grpc, TraceRequest::parse(bytes).expect("valid"));
        self.correlator.correlate(&mut batch);
        self.enricher.batch(&mut batch);
        batch
    }
}

fn pod_name(pod: u64) -> String {
    format!("web-{}-6d4cf56db6-x{pod:04}", pod / 5)
}

fn uid(pod: u64) -> String {
    format!("05c2e252-d864-4cd4-88e7-{pod:012}")
}

fn container(pod: u64) -> String {
    format!("{:064x}", pod + PODS)
}

type Step = (&'static str, Subject, Option<String>);

/// What kubelet asks to start a pod, with its polls in between.
fn start_of_pod(pod: u64) -> [Step; 8] {
    let (sandbox, container) = (format!("{pod:064x}"), container(pod));
    let (name, uid, namespace) = (pod_name(pod), uid(pod), "default".to_owned());
    let metadata = Subject::Sandbox { name, uid, namespace, attempt: 0 };
    let image = || Subject::Image("registry/app:1".to_owned());
    [
        ("RuntimeService/RunPodSandbox", metadata, Some(sandbox.clone())),
        ("RuntimeService/PodSandboxStatus", Subject::SandboxId(sandbox.clone()), None),
        ("ImageService/ImageStatus", image(), None),
        ("RuntimeService/CreateContainer", Subject::SandboxId(sandbox), Some(container.clone())),
        ("RuntimeService/StartContainer", Subject::ContainerId(container.clone()), None),
        ("RuntimeService/ListPodSandbox", Subject::Unknown, None),
        ("RuntimeService/ListContainers", Subject::Unknown, None),
        ("RuntimeService/ContainerStatus", Subject::ContainerId(container), None),
    ]
}

fn call(
    socket: &Arc<Socket>,
    pod: u64,
    step: u64,
    method: &str,
    subject: Subject,
    response_id: Option<String>,
) -> Call {
    let number = pod * 8 + step;
    // The first five are syncPod's, the rest have traces of their own.
    let trace = if step < 5 { pod * 8 } else { number };
    let started_ns = 1_795_318_104_000_000_000 + number * 1_000_000;
    let at = |microseconds: u64| Some(started_ns + microseconds * 1_000);
    Call {
        connection: 1,
        stream: number as u32 * 2 + 1,
        socket: Arc::clone(socket),
        method: Some(Arc::from(format!("runtime.v1.{method}"))),
        naming: Naming::Wire,
        guess: None,
        traceparent: Some(Traceparent { trace_id: scrambled(trace), span_id: span_id(number), flags: 1 }),
        status: None,
        lost_track: false,
        streaming: false,
        started_ns,
        ended_ns: started_ns + 900_000,
        points: Points {
            request_written_ns: at(10),
            request_read_ns: at(50),
            response_started_ns: at(800),
            response_written_ns: at(810),
            response_read_ns: at(850),
        },
        timeout_ns: None,
        subject,
        response_id,
        client: Peer::default(),
        server: Peer::default(),
        owner: None,
    }
}

fn span(call: &Call, is_client: bool) -> Span {
    let ids = call.traceparent.expect("every call has one");
    let method = call.method.as_deref().expect("every call has one");
    let (service, name) = method.split_once('/').expect("a service and a method");
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let (span_id, parent_span_id, kind) = match is_client {
        true => (ids.span_id.to_vec(), span_id(u64::MAX).to_vec(), span::SpanKind::Client),
        false => (span_id(call.started_ns).to_vec(), ids.span_id.to_vec(), span::SpanKind::Server),
    };
    let status = KeyValue {
        key: "rpc.grpc.status_code".to_owned(),
        value: Some(AnyValue { value: Some(Value::IntValue(0)) }),
        ..KeyValue::default()
    };
    let event = |kind: &str| span::Event {
        time_unix_nano: call.started_ns,
        name: "message".to_owned(),
        attributes: vec![text("message.type", kind)],
        ..span::Event::default()
    };
    Span {
        trace_id: ids.trace_id.to_vec(),
        span_id,
        parent_span_id,
        name: method.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: call.started_ns,
        end_time_unix_nano: call.ended_ns,
        attributes: vec![text("rpc.system", "grpc"), text("rpc.service", service), text("rpc.method", name), status],
        events: vec![event("SENT"), event("RECEIVED")],
        ..Span::default()
    }
}

/// Ids as random as real ones.
fn scrambled(number: u64) -> [u8; 16] {
    let mix =
        |value: u64| value.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29);
    let (high, low) = (mix(number), mix(mix(number)));
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&low.to_be_bytes());
    id
}

fn span_id(number: u64) -> [u8; 8] {
    *scrambled(number ^ 0x5555_5555).first_chunk().expect("16 bytes hold 8")
}
