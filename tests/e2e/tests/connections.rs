//! Connections that come and go in numbers: what the kernel side keeps of each is given back when it is closed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde_json::{Value, json};
use spanlet_e2e::Turn;
use spanlet_node::agent::{self, Agent, Ports};

/// More than the kernel side knows at once, which are 4,096.
const CONNECTIONS: usize = 5_000;
/// So many, then a pause: the agent is to keep up.
const BURST: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[tokio::test]
async fn more_connections_than_are_known_at_once_are_all_told() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let ports = Ports::free().unwrap();
    let mut config = agent::config(&ports, &socket, "http://127.0.0.1:1");
    config["export"] = json!({}); // nothing leaves
    config["enrich"] = json!({"runtime": "off"}); // the test's own connections only
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();

    let listener = UnixListener::bind(&socket).unwrap();
    for number in 0..CONNECTIONS {
        let mut client = UnixStream::connect(&socket).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        call(&mut client, &mut server, number);
        if number % BURST == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }

    let told = tokio::time::timeout(PATIENCE, async {
        while sum(&agent.metrics().await.unwrap(), "spanlet_calls_total") < CONNECTIONS as u64 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let is_told = told.await.is_ok();
    let metrics = agent.metrics().await.unwrap();
    assert!(is_told, "{metrics}");
    assert_eq!(sum(&metrics, "spanlet_calls_total"), CONNECTIONS as u64, "{metrics}");
    assert_eq!(sum(&metrics, "spanlet_events_lost_total"), 0, "{metrics}");
    let calls: Vec<Value> = agent.get("/api/v1/calls").await.unwrap();
    let last = traceparent(CONNECTIONS - 1);
    let last = calls.iter().find(|call| call["traceparent"] == json!(last)).expect("the last call is told");
    assert_eq!(last["method"], json!("runtime.v1.RuntimeService/Version"));
    assert_eq!(last["status"], json!(0));
    assert!(last["handling_ns"].is_u64(), "{last}");
    agent.stop().await.unwrap();
}

/// A call from its first byte to its last, on a connection of its own.
fn call(client: &mut UnixStream, server: &mut UnixStream, number: usize) {
    let mut request = PREFACE.to_vec();
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    block.extend(literal(":path", "/runtime.v1.RuntimeService/Version"));
    block.extend(literal("traceparent", &traceparent(number)));
    request.extend(frame(HEADERS, END_HEADERS, &block));
    request.extend(frame(DATA, END_STREAM, &[0; 5])); // an empty message
    client.write_all(&request).unwrap();
    let mut buffer = [0; 1024];
    assert_eq!(server.read(&mut buffer).unwrap(), request.len());
    let mut answer = frame(HEADERS, END_HEADERS, &[0x88]); // :status 200
    answer.extend(frame(DATA, 0, &[0; 5]));
    answer.extend(frame(HEADERS, END_HEADERS | END_STREAM, &literal("grpc-status", "0")));
    server.write_all(&answer).unwrap();
    assert_eq!(client.read(&mut buffer).unwrap(), answer.len());
}

fn traceparent(number: usize) -> String {
    format!("00-0af7651916cd43dd8448eb21{number:08x}-b7ad6b7169203331-01")
}

/// On stream 1 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short frames only");
    [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
}

/// RFC 7541 §6.2.2: a literal without indexing.
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// The sum of a counter over its labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let of_line = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = if rest.starts_with('{') { rest.split("} ").nth(1)? } else { rest.trim_start() };
        value.parse::<u64>().ok()
    };
    metrics.lines().filter_map(of_line).sum()
}
