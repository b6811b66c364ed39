//! Reads a recorded run of a real node as what capture, correlate and enrich would have made of it.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use spanlet::batch::{Batch, Source};
use spanlet::call::{Call, Naming, Peer, Points, Socket, SocketKind, Status, StatusSource, Subject, Traceparent};
use spanlet::pod::{Container, Owner, Pod};
use spanlet_otlp::TraceRequest;
use spanlet_proto::cri;

/// One stream of `…-client-decoded.json`; offsets are those of a frame's header, lengths those of its payload.
#[derive(Deserialize)]
struct Stream {
    stream: u32,
    req_headers: Vec<(String, String)>,
    req_headers_off: u64,
    #[serde(default)]
    req_data: Vec<(u64, u64)>,
    resp_headers_off: Option<u64>,
    #[serde(default)]
    resp_data: Vec<(u64, u64)>,
    trailers: Option<Vec<(String, String)>>,
    trailers_off: Option<u64>,
    trailers_hpack_len: Option<u64>,
}

/// A system call of `…-events.json`; times in Unix seconds.
#[derive(Deserialize)]
struct SystemCall {
    t: f64,
    #[serde(default)]
    t_end: f64,
    dir: Option<String>,
    #[serde(default)]
    off: u64,
    #[serde(default)]
    len: u64,
}

const FRAME_HEADER_BYTES: u64 = 9;
const GRPC_PREFIX_BYTES: usize = 5;

/// Whose a sandbox, a container or a trace is.
#[derive(Default)]
pub(crate) struct Owners {
    by_id: HashMap<String, Owner>,
    by_trace: HashMap<[u8; 16], Owner>,
}

/// The finished calls of run `run`, both connections, in order of their start, with the owners that the wire tells.
pub(crate) fn calls(run: &str, owners: &mut Owners) -> Vec<Call> {
    let mut calls: Vec<_> = (1..=2).flat_map(|connection| connection_calls(run, connection)).collect();
    calls.sort_by_key(|call| call.started_ns);
    for call in &mut calls {
        owners.learn(call);
    }
    for call in &mut calls {
        call.owner = owners.of_call(call);
    }
    calls
}

/// The run's OTLP requests in order of arrival, spans owned by what the calls and the syncs of the run tell.
pub(crate) fn batches(path: &str, owners: &mut Owners) -> Vec<Batch> {
    let mut batches: Vec<_> = requests(path).into_iter().map(|request| Batch::new(Source::Grpc, request)).collect();
    for batch in &batches {
        for span in batch.request.spans() {
            owners.learn_sync(&span);
        }
    }
    for batch in &mut batches {
        batch.owners = batch.request.spans().map(|span| owners.by_trace.get(&span.trace_id()).cloned()).collect();
    }
    batches
}

/// The run's OTLP requests as they arrived, no owner set.
pub(crate) fn requests(path: &str) -> Vec<TraceRequest> {
    let mut left = Bytes::from(fs::read(fixture(path)).expect("the fixture is part of the repository"));
    let mut requests = Vec::new();
    while !left.is_empty() {
        let length = usize::try_from(prost::encoding::decode_varint(&mut left).unwrap()).unwrap();
        requests.push(TraceRequest::parse(left.split_to(length)).unwrap());
    }
    requests
}

impl Owners {
    fn learn(&mut self, call: &Call) {
        let owner = match (&call.subject, &call.response_id) {
            (Subject::Sandbox { name, uid, namespace, .. }, Some(id)) => {
                let pod =
                    Pod { namespace: namespace.clone(), name: name.clone(), uid: uid.clone(), attributes: Vec::new() };
                let owner = Owner { pod: Arc::new(pod), container: None, source: "wire" };
                self.by_id.insert(id.clone(), owner.clone());
                owner
            }
            (Subject::SandboxId(sandbox), Some(id)) => {
                let Some(owner) = self.by_id.get(sandbox).cloned() else { return };
                let container = Arc::new(Container { id: id.clone(), name: String::new() });
                self.by_id.insert(id.clone(), Owner { container: Some(container), ..owner.clone() });
                owner
            }
            _ => return,
        };
        if let Some(traceparent) = &call.traceparent {
            self.by_trace.insert(traceparent.trace_id, owner);
        }
    }

    fn learn_sync(&mut self, span: &spanlet_otlp::Span<'_>) {
        if !span.name().starts_with("sync") {
            return;
        }
        let text = |key| span.attribute(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let pod = Pod {
            namespace: text("k8s.namespace.name"),
            name: text("k8s.pod.name"),
            uid: text("k8s.pod.uid"),
            attributes: Vec::new(),
        };
        self.by_trace.entry(span.trace_id()).or_insert_with(|| Owner {
            pod: Arc::new(pod),
            container: None,
            source: "span",
        });
    }

    fn of_call(&self, call: &Call) -> Option<Owner> {
        let by_wire = match (&call.subject, &call.response_id) {
            (Subject::Sandbox { .. }, Some(id)) => self.by_id.get(id),
            (Subject::SandboxId(id) | Subject::ContainerId(id), _) => self.by_id.get(id),
            _ => None,
        };
        by_wire.or_else(|| self.by_trace.get(&call.traceparent?.trace_id)).cloned()
    }
}

fn connection_calls(run: &str, connection: u64) -> Vec<Call> {
    let prefix = format!("cri/cri-conn-{run}-{connection}");
    let sent = fs::read(fixture(&format!("{prefix}-client-c2s.bin"))).unwrap();
    let received = fs::read(fixture(&format!("{prefix}-client-s2c.bin"))).unwrap();
    let client = system_calls(&format!("{prefix}-client-events.json"));
    let server = fixture(&format!("{prefix}-server-events.json"))
        .exists()
        .then(|| system_calls(&format!("{prefix}-server-events.json")));
    let socket = Arc::new(Socket { kind: SocketKind::Cri, path: "/run/containerd/containerd.sock".to_owned() });
    let decoded = fs::read_to_string(fixture(&format!("{prefix}-client-decoded.json"))).unwrap();
    let streams = decoded.lines().map(|line| serde_json::from_str::<Stream>(line).unwrap());
    // Calls that the recording cuts off have no end.
    streams
        .filter(|stream| stream.trailers.is_some())
        .map(|stream| {
            let points = stream.points(&client, server.as_deref());
            let (subject, response_id) = stream.names(&sent, &received);
            Call {
                connection,
                stream: stream.stream,
                socket: Arc::clone(&socket),
                method: stream.header(":path").map(|path| path.trim_start_matches('/').into()),
                naming: Naming::Wire,
                guess: None,
                traceparent: stream.header("traceparent").and_then(|value| Traceparent::parse(value.as_bytes())),
                status: stream.status(),
                lost_track: false,
                streaming: false,
                started_ns: at(&client, "tx", stream.req_headers_off, |event| event.t).unwrap(),
                ended_ns: points.response_read_ns.unwrap(),
                points,
                timeout_ns: None,
                subject,
                response_id,
                client: Peer::default(),
                server: Peer::default(),
                owner: None,
            }
        })
        .collect()
}

impl Stream {
    fn header(&self, name: &str) -> Option<&str> {
        self.req_headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn status(&self) -> Option<Status> {
        let code = self.trailers.as_ref()?.iter().find(|(key, _)| key == "grpc-status")?.1.parse().ok()?;
        Some(Status { code, source: StatusSource::Wire })
    }

    fn points(&self, client: &[SystemCall], server: Option<&[SystemCall]>) -> Points {
        let (data_off, data_len) = *self.req_data.last().unwrap();
        let request_end = data_off + FRAME_HEADER_BYTES + data_len - 1;
        let trailers_off = self.trailers_off.unwrap();
        let response_begin = self.resp_headers_off.unwrap_or(trailers_off);
        let response_end = trailers_off + FRAME_HEADER_BYTES + self.trailers_hpack_len.unwrap() - 1;
        let on_server = |dir, offset, time: fn(&SystemCall) -> f64| at(server?, dir, offset, time);
        Points {
            request_written_ns: at(client, "tx", request_end, |event| event.t),
            request_read_ns: on_server("rx", request_end, |event| event.t_end),
            response_started_ns: on_server("tx", response_begin, |event| event.t),
            response_written_ns: on_server("tx", response_end, |event| event.t),
            response_read_ns: at(client, "rx", response_end, |event| event.t_end),
        }
    }

    /// Whom the request is about, and the id in the answer.
    fn names(&self, sent: &[u8], received: &[u8]) -> (Subject, Option<String>) {
        let request = message(sent, &self.req_data);
        let id = || cri::IdMessage::decode(&request[..]).map(|message| message.id).unwrap_or_default();
        let answer = || cri::IdMessage::decode(&message(received, &self.resp_data)[..]).ok().map(|message| message.id);
        match self.header(":path").unwrap_or_default().rsplit('/').next().unwrap_or_default() {
            "RunPodSandbox" => {
                let request = cri::RunPodSandboxRequest::decode(&request[..]).unwrap();
                let metadata = request.config.and_then(|config| config.metadata).unwrap();
                let cri::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
                (Subject::Sandbox { name, uid, namespace, attempt }, answer())
            }
            "CreateContainer" => (Subject::SandboxId(id()), answer()),
            "PodSandboxStatus" | "StopPodSandbox" | "RemovePodSandbox" => (Subject::SandboxId(id()), None),
            "StartContainer" | "StopContainer" | "ContainerStatus" | "RemoveContainer" => {
                (Subject::ContainerId(id()), None)
            }
            _ => (Subject::Unknown, None),
        }
    }
}

/// A message of one gRPC frame, from the payloads of its DATA frames.
fn message(stream: &[u8], frames: &[(u64, u64)]) -> Vec<u8> {
    let payload = frames.iter().flat_map(|&(off, len)| {
        let begin = usize::try_from(off + FRAME_HEADER_BYTES).unwrap();
        &stream[begin..begin + usize::try_from(len).unwrap()]
    });
    payload.skip(GRPC_PREFIX_BYTES).copied().collect()
}

fn system_calls(path: &str) -> Vec<SystemCall> {
    serde_json::from_slice(&fs::read(fixture(path)).unwrap()).unwrap()
}

/// When the system call that moved the byte at `offset` happened, Unix nanoseconds.
fn at(events: &[SystemCall], dir: &str, offset: u64, time: fn(&SystemCall) -> f64) -> Option<u64> {
    let event = events
        .iter()
        .filter(|event| event.dir.as_deref() == Some(dir))
        .find(|event| (event.off..event.off + event.len).contains(&offset))?;
    Some((time(event) * 1e6).round() as u64 * 1_000)
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}
