//! A running agent, spans to send to it, and an upstream that does as it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use spanlet::api::SpanLedger;
use spanlet::config::Config;
use spanlet::pipeline::Pipeline;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// How long anything here may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Every listener on a port of its own; no probes.
pub(crate) const LISTEN: &str = "
receive: {grpc_listen: '127.0.0.1:0', http_listen: '127.0.0.1:0'}
admin: {listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0'}
capture: {mode: 'off'}
";

/// An agent with `more` lines of configuration.
pub(crate) async fn agent(more: &str) -> Pipeline {
    Pipeline::start(&config(&format!("{LISTEN}\n{more}"))).await.unwrap()
}

pub(crate) fn config(text: &str) -> Config {
    Config::parse(text, |_| None).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A request of `count` spans whose ids follow from `first`.
pub(crate) fn spans(first: u64, count: u64) -> ExportTraceServiceRequest {
    spans_with_text(first, count, "")
}

/// As [`spans`], each with a text of its own.
pub(crate) fn spans_with_text(first: u64, count: u64, text: &str) -> ExportTraceServiceRequest {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let span = |number: u64| Span {
        trace_id: u128::from(number).to_be_bytes().to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        name: format!("span {number}"),
        start_time_unix_nano: 1_700_000_000_000_000_000 + number,
        end_time_unix_nano: 1_700_000_000_000_000_100 + number,
        attributes: vec![attribute("text", text)],
        ..Span::default()
    };
    let resource = Resource { attributes: vec![attribute("service.name", "test")], ..Resource::default() };
    let scope_spans = ScopeSpans { spans: (first..first + count).map(span).collect(), ..ScopeSpans::default() };
    let resource_spans =
        ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// A connection of its own to the agent's OTLP/gRPC.
pub(crate) async fn client(agent: &Pipeline) -> TraceServiceClient<Channel> {
    client_to(agent.addresses().grpc.unwrap()).await
}

pub(crate) async fn client_to(address: SocketAddr) -> TraceServiceClient<Channel> {
    TraceServiceClient::connect(format!("http://{address}")).await.unwrap()
}

/// The ledger once `settled` holds for it; panics with the last one if that takes too long.
pub(crate) async fn ledger_when(agent: &Pipeline, settled: impl Fn(&SpanLedger) -> bool) -> SpanLedger {
    let started = tokio::time::Instant::now();
    loop {
        let ledger = agent.metrics().spans();
        if settled(&ledger) {
            return ledger;
        }
        assert!(started.elapsed() < PATIENCE, "the ledger did not settle: {ledger:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The ledger once nothing is held. It must balance then.
pub(crate) async fn ledger_at_rest(agent: &Pipeline, received: u64) -> SpanLedger {
    let ledger = ledger_when(agent, |ledger| ledger.received >= received && ledger.held == 0).await;
    assert!(ledger.balances(), "{ledger:?}");
    ledger
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One request on a connection of its own.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The agent may answer and close before it has read all of a body that it refuses.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    parse(&answer)
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    http(address, "GET", path, &[], b"").await
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: answer[end + 4..].to_vec() }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
