//! Reads the recordings of a real node: CRI connections as calls, OTLP requests as they arrived.
//!
//! Everything is read from the independently decoded files and the raw bytes, with none of the agent's own decoders, so that
//! the tests' expectations are not the agent's opinion.

pub(crate) mod copies;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use spanlet::call::{Call, Naming, Peer, Points, Socket, SocketKind, Status, StatusSource, Subject, Traceparent};

/// One OTLP request and when it arrived.
pub(crate) struct Arrival {
    pub(crate) at_unix_nano: u64,
    pub(crate) bytes: Bytes,
    /// The same request as the recorder wrote it in JSON.
    pub(crate) spans: Vec<JsonSpan>,
    pub(crate) resources: usize,
}

/// A span as the JSON file has it.
#[derive(Clone)]
pub(crate) struct JsonSpan {
    pub(crate) service: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_id: Option<String>,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) events: Vec<String>,
    pub(crate) start_unix_nano: u64,
    pub(crate) end_unix_nano: u64,
}

impl JsonSpan {
    pub(crate) fn key(&self) -> (String, String) {
        (self.trace_id.clone(), self.span_id.clone())
    }

    /// The ids that the `traceparent` of this span's call would have.
    pub(crate) fn call_key(&self) -> Option<(String, String)> {
        match self.kind.as_str() {
            "SPAN_KIND_CLIENT" => Some(self.key()),
            "SPAN_KIND_SERVER" => Some((self.trace_id.clone(), self.parent_id.clone()?)),
            _ => None,
        }
    }
}

/// The OTLP requests of `tests/fixtures/<name>.binpb` and `.json.gz`, in order of arrival.
pub(crate) fn arrivals(name: &str) -> Vec<Arrival> {
    let bytes = Bytes::from(std::fs::read(fixture(&format!("{name}.binpb"))).unwrap());
    let mut json = String::new();
    let file = std::fs::File::open(fixture(&format!("{name}.json.gz"))).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut json).unwrap();
    let mut rest = bytes;
    let arrivals = json.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let len = prost::decode_length_delimiter(&mut rest).unwrap();
        let resources = line["request"]["resourceSpans"].as_array().unwrap();
        Arrival {
            at_unix_nano: line["meta"]["recv_unix_nano"].as_u64().unwrap(),
            bytes: rest.split_to(len),
            spans: resources.iter().flat_map(spans_of).collect(),
            resources: resources.len(),
        }
    });
    arrivals.collect()
}

/// The calls of both CRI connections of `run`, in the order in which they started. With the server's side recorded they
/// have all five points.
pub(crate) fn calls(run: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = (1..=2).flat_map(|connection| connection_calls(run, connection)).collect();
    calls.sort_by_key(|call| call.started_ns);
    calls
}

/// The call as it was when only its request was known.
pub(crate) fn started(call: &Call) -> Call {
    let points = Points { request_written_ns: call.points.request_written_ns, ..Points::default() };
    Call { status: None, ended_ns: call.started_ns, points, response_id: None, ..call.clone() }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

// === OTLP ===

fn spans_of(resource: &Value) -> Vec<JsonSpan> {
    let service = attributes(&resource["resource"]).remove("service.name").unwrap_or_default();
    let scopes = resource["scopeSpans"].as_array().unwrap();
    let spans = scopes.iter().flat_map(|scope| scope["spans"].as_array().unwrap());
    spans
        .map(|span| JsonSpan {
            service: service.clone(),
            trace_id: text(&span["traceId"]),
            span_id: text(&span["spanId"]),
            parent_id: span["parentSpanId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            name: text(&span["name"]),
            kind: text(&span["kind"]),
            attributes: attributes(span),
            events: span["events"].as_array().into_iter().flatten().map(|event| text(&event["name"])).collect(),
            start_unix_nano: text(&span["startTimeUnixNano"]).parse().unwrap(),
            end_unix_nano: text(&span["endTimeUnixNano"]).parse().unwrap(),
        })
        .collect()
}

fn attributes(owner: &Value) -> HashMap<String, String> {
    let list = owner["attributes"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(|attribute| Some((text(&attribute["key"]), attribute["value"]["stringValue"].as_str()?.to_owned())))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

// === CRI ===

fn connection_calls(run: &str, connection: u64) -> Vec<Call> {
    let prefix = format!("cri/cri-conn-{run}-{connection}");
    let read = |suffix: &str| std::fs::read(fixture(&format!("{prefix}-{suffix}"))).ok();
    let decoded = String::from_utf8(read("client-decoded.json").unwrap()).unwrap();
    let requests = read("client-c2s.bin").unwrap();
    let responses = read("client-s2c.bin").unwrap();
    let client = Syscalls::parse(&read("client-events.json").unwrap());
    let server = read("server-events.json").map(|events| Syscalls::parse(&events));
    let socket = Arc::new(Socket { kind: SocketKind::Cri, path: "/run/containerd/containerd.sock".to_owned() });
    decoded
        .lines()
        .map(|line| {
            let stream: Value = serde_json::from_str(line).unwrap();
            call(connection, &stream, &requests, &responses, &client, server.as_ref(), &socket)
        })
        .collect()
}

fn call(
    connection: u64,
    stream: &Value,
    requests: &[u8],
    responses: &[u8],
    client: &Syscalls,
    server: Option<&Syscalls>,
    socket: &Arc<Socket>,
) -> Call {
    let header = |name: &str| {
        let lists = ["req_headers", "trailers"].map(|list| stream[list].as_array().cloned().unwrap_or_default());
        lists.concat().iter().find(|pair| pair[0] == name).map(|pair| text(&pair[1]))
    };
    let method = header(":path").unwrap().trim_start_matches('/').to_owned();
    let request = message(&stream["req_data"], requests);
    let response = message(&stream["resp_data"], responses);
    let first_off = |list: &str, headers: &str| stream[headers].as_u64().or_else(|| stream[list][0][0].as_u64());
    let request_end = end_of_data(&stream["req_data"]);
    let response_start = first_off("resp_data", "resp_headers_off").or_else(|| stream["trailers_off"].as_u64());
    let response_end =
        stream["trailers_off"].as_u64().map(|offset| offset + 9 + stream["trailers_hpack_len"].as_u64().unwrap());
    let points = Points {
        request_written_ns: client.wrote(request_end - 1),
        request_read_ns: server.and_then(|server| server.read(request_end - 1)),
        response_started_ns: server.and_then(|server| server.wrote(response_start?)),
        response_written_ns: server.and_then(|server| server.wrote(response_end? - 1)),
        response_read_ns: response_end.and_then(|end| client.read(end - 1)),
    };
    let started_ns = client.wrote(stream["req_headers_off"].as_u64().unwrap()).unwrap();
    let makes_id = method.ends_with("/RunPodSandbox") || method.ends_with("/CreateContainer");
    Call {
        connection,
        stream: u32::try_from(stream["stream"].as_u64().unwrap()).unwrap(),
        socket: Arc::clone(socket),
        subject: subject(&method, &request),
        method: Some(Arc::from(method)),
        naming: Naming::Wire,
        guess: None,
        traceparent: header("traceparent").and_then(|value| Traceparent::parse(value.as_bytes())),
        status: header("grpc-status").map(|code| Status { code: code.parse().unwrap(), source: StatusSource::Wire }),
        lost_track: false,
        streaming: false,
        started_ns,
        ended_ns: points.response_read_ns.unwrap_or(started_ns),
        points,
        timeout_ns: None,
        response_id: makes_id.then(|| string(field_1(&response))),
        client: Peer::default(),
        server: Peer::default(),
        owner: None,
    }
}

/// What field 1 of the request means, by method.
fn subject(method: &str, request: &[u8]) -> Subject {
    let name = method.rsplit('/').next().unwrap();
    match name {
        "RunPodSandbox" => {
            let metadata = fields(field_1(field_1(request)));
            let get = |number| metadata.iter().find(|(n, _)| *n == number).map(|(_, value)| string(value));
            let [name, uid, namespace] = [1, 2, 3].map(|number| get(number).unwrap_or_default());
            Subject::Sandbox { name, uid, namespace, attempt: 0 }
        }
        "PodSandboxStatus" | "StopPodSandbox" | "RemovePodSandbox" | "CreateContainer" => {
            Subject::SandboxId(string(field_1(request)))
        }
        "StartContainer" | "StopContainer" | "RemoveContainer" | "ContainerStatus" | "ExecSync" => {
            Subject::ContainerId(string(field_1(request)))
        }
        "ImageStatus" | "PullImage" => Subject::Image(string(field_1(field_1(request)))),
        _ => Subject::Unknown,
    }
}

/// The message of a stream's DATA frames, without gRPC's prefix.
fn message(frames: &Value, bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for frame in frames.as_array().into_iter().flatten() {
        let start = frame[0].as_u64().unwrap() as usize + 9;
        data.extend_from_slice(&bytes[start..start + frame[1].as_u64().unwrap() as usize]);
    }
    data.split_off(data.len().min(5))
}

/// Offset behind the last DATA frame.
fn end_of_data(frames: &Value) -> u64 {
    let last = frames.as_array().unwrap().last().unwrap();
    last[0].as_u64().unwrap() + 9 + last[1].as_u64().unwrap()
}

fn field_1(message: &[u8]) -> &[u8] {
    fields(message).into_iter().find(|(number, _)| *number == 1).map_or(&[], |(_, value)| value)
}

/// Length-delimited fields of a protobuf message, others skipped.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        match tag & 7 {
            0 => drop(varint(&mut message)),
            1 => message = &message[8..],
            2 => {
                let len = varint(&mut message) as usize;
                fields.push((tag >> 3, &message[..len]));
                message = &message[len..];
            }
            _ => message = &message[4..],
        }
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (varint, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    varint.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The reads and writes of one end of a connection.
struct Syscalls {
    writes: Vec<Syscall>,
    reads: Vec<Syscall>,
}

struct Syscall {
    offset: u64,
    len: u64,
    entry_ns: u64,
    exit_ns: u64,
}

impl Syscalls {
    fn parse(json: &[u8]) -> Self {
        let events: Vec<Value> = serde_json::from_slice(json).unwrap();
        let of = |direction: &str| {
            let matching = events.iter().filter(|event| event["dir"] == direction);
            matching
                .map(|event| Syscall {
                    offset: event["off"].as_u64().unwrap(),
                    len: event["len"].as_u64().unwrap(),
                    entry_ns: nanoseconds(&event["t"]),
                    exit_ns: nanoseconds(&event["t_end"]),
                })
                .collect()
        };
        Self { writes: of("tx"), reads: of("rx") }
    }

    /// Entry of the write that held the byte at `offset`.
    fn wrote(&self, offset: u64) -> Option<u64> {
        self.writes.iter().find(|call| call.holds(offset)).map(|call| call.entry_ns)
    }

    /// When the byte at `offset` had been read.
    fn read(&self, offset: u64) -> Option<u64> {
        self.reads.iter().find(|call| call.holds(offset)).map(|call| call.exit_ns)
    }
}

impl Syscall {
    fn holds(&self, offset: u64) -> bool {
        (self.offset..self.offset + self.len).contains(&offset)
    }
}

fn nanoseconds(seconds: &Value) -> u64 {
    (seconds.as_f64().unwrap() * 1e6).round() as u64 * 1_000
}
