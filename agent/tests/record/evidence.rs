//! Builds evidence by hand: calls, spans and execs of made-up pods, with times in milliseconds of one day.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use spanlet::api::PodTimeline;
use spanlet::batch::{Batch, Source};
use spanlet::call::{
    Body, Call, CallEvent, Guess, Naming, Peer, Points, Socket, SocketKind, Status, StatusSource, Subject, Traceparent,
};
use spanlet::config;
use spanlet::exec::Exec;
use spanlet::pod::{Container, Owner, Pod};
use spanlet::record::Recorder;
use spanlet_otlp::build::{self, NewRequest, NewSpan};
use spanlet_otlp::{SpanKind, TraceRequest};

const DAY_NS: u64 = 1_795_305_600_000_000_000;
const MS: u64 = 1_000_000;

/// One thing that the recorder is told.
#[derive(Debug, Clone)]
pub(crate) enum Evidence {
    Call(CallEvent),
    Span(SpanOf),
    Exec(Exec),
}

/// A span and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct SpanOf {
    pub(crate) span: NewSpan,
    pub(crate) owner: Option<Owner>,
}

/// A call to be; `Clone` so that a test can tell of it more than once.
#[derive(Debug, Clone)]
pub(crate) struct NewCall(Box<Call>);

pub(crate) fn at(ms: u64) -> u64 {
    DAY_NS + ms * MS
}

pub(crate) fn pod(name: &str) -> Arc<Pod> {
    Arc::new(Pod {
        namespace: "default".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        attributes: Vec::new(),
    })
}

pub(crate) fn owner(pod: &Arc<Pod>) -> Owner {
    Owner { pod: Arc::clone(pod), container: None, source: "wire" }
}

/// A finished CRI call of `pod`, each on a stream of its own.
pub(crate) fn call(pod: &Arc<Pod>, verb: &str, from_ms: u64, to_ms: u64) -> NewCall {
    let service = if verb.contains("Image") { "runtime.v1.ImageService" } else { "runtime.v1.RuntimeService" };
    NewCall(Box::new(Call {
        connection: if verb.contains("Image") { 2 } else { 1 },
        stream: stream(pod, verb, from_ms),
        socket: Arc::new(Socket { kind: SocketKind::Cri, path: "/run/containerd/containerd.sock".into() }),
        method: Some(format!("{service}/{verb}").into()),
        naming: Naming::Wire,
        guess: None,
        traceparent: None,
        status: Some(Status { code: 0, source: StatusSource::Wire }),
        lost_track: false,
        streaming: false,
        started_ns: at(from_ms),
        ended_ns: at(to_ms),
        points: Points {
            request_written_ns: Some(at(from_ms)),
            request_read_ns: Some(at(from_ms)),
            response_started_ns: Some(at(to_ms)),
            response_written_ns: Some(at(to_ms)),
            response_read_ns: Some(at(to_ms)),
        },
        timeout_ns: None,
        subject: Subject::Unknown,
        response_id: None,
        client: Peer::default(),
        server: Peer::default(),
        owner: Some(owner(pod)),
    }))
}

/// Another one for each call; the same whenever a test tells of a call again.
fn stream(pod: &Pod, verb: &str, from_ms: u64) -> u32 {
    let mut hasher = DefaultHasher::new();
    (&pod.uid, verb, from_ms).hash(&mut hasher);
    hasher.finish() as u32 | 1
}

impl NewCall {
    pub(crate) fn container(mut self, id: &str, name: &str) -> Self {
        let container = Container { id: id.into(), name: name.into() };
        self.0.owner.as_mut().expect("set by call()").container = Some(Arc::new(container));
        self
    }

    pub(crate) fn image(mut self, image: &str) -> Self {
        self.0.subject = Subject::Image(image.into());
        self
    }

    pub(crate) fn status(mut self, code: u8) -> Self {
        self.0.status = Some(Status { code, source: StatusSource::Wire });
        self
    }

    pub(crate) fn span(mut self, trace: u8, span: u8) -> Self {
        self.0.traceparent = Some(Traceparent { trace_id: [trace; 16], span_id: [span; 8], flags: 1 });
        self
    }

    pub(crate) fn connection(mut self, connection: u64) -> Self {
        self.0.connection = connection;
        self
    }

    pub(crate) fn unowned(mut self) -> Self {
        self.0.owner = None;
        self
    }

    pub(crate) fn on(mut self, kind: SocketKind, method: &str) -> Self {
        self.0.socket = Arc::new(Socket { kind, path: "/var/lib/kubelet/plugins/some/plugin.sock".into() });
        self.0.method = Some(method.into());
        self
    }

    pub(crate) fn stream_key(&self) -> (u64, u32) {
        (self.0.connection, self.0.stream)
    }

    pub(crate) fn finished(self) -> Evidence {
        Evidence::Call(CallEvent::Finished(self.0))
    }

    /// Its end was lost: what is known ends with the request.
    pub(crate) fn lost(mut self) -> Evidence {
        self.0.status = None;
        self.0.lost_track = true;
        self.0.ended_ns = self.0.started_ns;
        self.0.points = Points { request_written_ns: self.0.points.request_written_ns, ..Points::default() };
        Evidence::Call(CallEvent::Finished(self.0))
    }

    /// Without a name, but with what its shape tells.
    pub(crate) fn guessed(mut self, methods: &'static [&'static str]) -> Self {
        self.0.method = None;
        self.0.naming = Naming::Unknown;
        self.0.guess = Some(Guess { methods, body: Body::Empty });
        self.0.timeout_ns = Some(120_000_000_000);
        self
    }

    pub(crate) fn started(mut self) -> Evidence {
        self.0.status = None;
        self.0.ended_ns = self.0.started_ns;
        self.0.points = Points { request_written_ns: self.0.points.request_written_ns, ..Points::default() };
        Evidence::Call(CallEvent::Started(self.0))
    }
}

/// A container made and started: 10 ms and 50 ms.
pub(crate) fn container(pod: &Arc<Pod>, id: &str, name: &str, from_ms: u64) -> [Evidence; 2] {
    [
        call(pod, "CreateContainer", from_ms, from_ms + 10).container(id, name).finished(),
        call(pod, "StartContainer", from_ms + 10, from_ms + 60).container(id, name).finished(),
    ]
}

/// A sync of kubelet's, as its span tells.
pub(crate) fn sync(pod: &Arc<Pod>, name: &str, trace: u8, from_ms: u64, to_ms: u64, error: bool) -> Evidence {
    let mut span = NewSpan::new([trace; 16], [0xff; 8], name, SpanKind::Internal, at(from_ms), at(to_ms));
    span.str("k8s.pod.update_type", "create");
    if error {
        span.status(build::Status::Error, "it did not work");
    }
    Evidence::Span(SpanOf { span, owner: Some(owner(pod)) })
}

/// A span of any kind with a parent.
pub(crate) fn span(
    pod: &Arc<Pod>,
    (name, kind): (&str, SpanKind),
    trace: u8,
    (id, parent): (u8, u8),
    (from_ms, to_ms): (u64, u64),
) -> Evidence {
    let mut span = NewSpan::new([trace; 16], [id; 8], name, kind, at(from_ms), at(to_ms));
    span.parent([parent; 8]);
    Evidence::Span(SpanOf { span, owner: Some(owner(pod)) })
}

pub(crate) fn exec(
    pod: &Arc<Pod>,
    argv: &[&str],
    (pid, parent_pid): (u32, u32),
    from_ms: u64,
    to_ms: Option<u64>,
) -> Evidence {
    Evidence::Exec(Exec {
        pid,
        parent_pid,
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        cni: Vec::new(),
        started_ns: at(from_ms),
        ended_ns: to_ms.map(at),
        exit_status: to_ms.map(|_| 0),
        cpu_ns: to_ms.map(|_| 1_000_000),
        owner: Some(owner(pod)),
    })
}

pub(crate) fn recorder(evidence: &[Evidence]) -> Recorder {
    let mut recorder = Recorder::new(&config::Record::default());
    evidence.iter().for_each(|piece| tell(&mut recorder, piece));
    recorder
}

pub(crate) fn tell(recorder: &mut Recorder, piece: &Evidence) {
    match piece {
        Evidence::Call(event) => recorder.call(event),
        Evidence::Span(span) => recorder.batch(&span.batch()),
        Evidence::Exec(exec) => recorder.exec(exec),
    }
}

/// The timeline of `pod` at `now_ms`.
pub(crate) fn timeline(evidence: &[Evidence], pod: &Pod, now_ms: u64) -> Option<PodTimeline> {
    recorder(evidence).pod(&pod.namespace, &pod.name, at(now_ms))
}

/// Entries as `name kind from-to`, in milliseconds, one line each, indented by depth.
pub(crate) fn drawn(timeline: &PodTimeline) -> Vec<String> {
    let entries = timeline.entries.iter();
    entries
        .map(|entry| {
            let ms = |ns: u64| (ns - DAY_NS) / MS;
            let verb = if entry.name.contains(' ') { &entry.name } else { entry.name.rsplit('/').next().unwrap() };
            let (indent, kind) = (2 * entry.depth as usize, format!("{:?}", entry.kind).to_lowercase());
            format!("{:indent$}{verb} {kind} {}-{}", "", ms(entry.start_unix_nano), ms(entry.end_unix_nano))
        })
        .collect()
}

impl SpanOf {
    pub(crate) fn batch(&self) -> Batch {
        let mut request = NewRequest::new("test", "1");
        request.push(&self.span);
        let request = TraceRequest::parse(request.encode()).expect("built well");
        let mut batch = Batch::new(Source::Grpc, request);
        batch.owners = vec![self.owner.clone()];
        batch
    }
}
