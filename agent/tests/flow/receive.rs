//! What comes in: every transport and encoding, every refusal, and the ledger over them.

use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use spanlet::pipeline::Pipeline;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{self, agent, client, get, gzip, http, ledger_at_rest, ledger_when, spans, spans_with_text};
use crate::upstream::{Script, Upstream};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

async fn post(agent: &Pipeline, headers: &[(&str, &str)], body: &[u8]) -> support::Answer {
    http(agent.addresses().http.unwrap(), "POST", "/v1/traces", headers, body).await
}

fn refusals(agent: &Pipeline, reason: &str) -> u64 {
    let prefix = format!("spanlet_requests_refused_total{{reason=\"{reason}\"}} ");
    let text = agent.metrics().render();
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_and_encoding_is_taken_and_forwarded_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("deep/otlp.sock");
    let upstream = Upstream::start().await;
    let listen = format!(
        "receive: {{grpc_listen: '127.0.0.1:0', http_listen: '127.0.0.1:0', unix_listen: {}}}\nadmin: {{listen: null}}\n{}",
        socket.display(),
        upstream.export("")
    );
    let agent = Pipeline::start(&support::config(&listen)).await.unwrap();

    let mut plain = client(&agent).await;
    let answer = plain.export(spans(0, 10)).await.unwrap();
    assert_eq!(answer.get_ref().partial_success, None, "full success leaves partial_success unset");
    let mut compressed = client(&agent).await.send_compressed(CompressionEncoding::Gzip);
    compressed.export(spans(10, 10)).await.unwrap();
    let answer = post(&agent, &[PROTOBUF], &spans(20, 10).encode_to_vec()).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0), "ExportTraceServiceResponse without fields is empty");
    assert_eq!(answer.headers["content-type"], PROTOBUF.1);
    let answer = post(&agent, &[PROTOBUF, GZIP], &gzip(&spans(30, 10).encode_to_vec())).await;
    assert_eq!(answer.status, 200);
    let unix = tonic::transport::Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    let mut unix = TraceServiceClient::new(unix.connect().await.unwrap());
    unix.export(spans(40, 10)).await.unwrap();

    let came = upstream.spans(50).await;
    assert_eq!(came.keys().copied().collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert!(came.values().all(|times| *times == 1));
    let ledger = ledger_at_rest(&agent, 50).await;
    assert_eq!((ledger.received, ledger.exported, ledger.refused), (50, 50, 0));
    let metrics = agent.metrics().render();
    assert!(metrics.contains("spanlet_spans_received_total{source=\"grpc\"} 30"), "{metrics}");
    assert!(metrics.contains("spanlet_spans_received_total{source=\"http\"} 20"), "{metrics}");
    drop((plain, compressed, unix));
    agent.stop().await;
    assert!(!socket.exists(), "the socket file goes with the listener");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_requests_succeed_and_are_forwarded_to_nobody() {
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    client(&agent).await.export(spans(0, 0)).await.unwrap();
    client(&agent).await.export(ExportTraceServiceRequest::default()).await.unwrap();
    assert_eq!(post(&agent, &[PROTOBUF], b"").await.status, 200);
    assert_eq!(agent.metrics().spans(), spanlet::api::SpanLedger::default());
    agent.stop().await;
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_after_decompression_is_refused() {
    let agent = agent("").await;
    let small = "receive: {grpc_listen: '127.0.0.1:0', http_listen: '127.0.0.1:0', max_request_bytes: 1MiB}\nadmin: {listen: null}";
    let agent_small = Pipeline::start(&support::config(small)).await.unwrap();
    let bomb = spans_with_text(0, 1, &"a".repeat(2 << 20));
    let bytes = bomb.encode_to_vec();
    assert!(gzip(&bytes).len() < 64 << 10, "compressed it is far below the limit");

    for compress in [false, true] {
        let mut client = client(&agent_small).await;
        if compress {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let status = client.export(bomb.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.get_details_retry_info().is_none(), "it must not come again");
    }
    assert_eq!(post(&agent_small, &[PROTOBUF], &bytes).await.status, 413);
    assert_eq!(post(&agent_small, &[PROTOBUF, GZIP], &gzip(&bytes)).await.status, 413);
    assert_eq!(refusals(&agent_small, "too_large"), 4);
    assert_eq!(agent_small.metrics().budget().held_bytes(), 0);
    agent_small.stop().await;

    assert_eq!(post(&agent, &[PROTOBUF, GZIP], &gzip(&bytes)).await.status, 200, "the default limit is 64 MiB");
    let ledger = ledger_at_rest(&agent, 1).await;
    assert_eq!(ledger.filtered["local"], 1, "without an endpoint spans stay on the node");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_or_unknown_is_refused_for_good() {
    let agent = agent("").await;
    let good = spans(0, 1).encode_to_vec();
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Headers<'_>, &[u8], u16); 7] = [
        (&[PROTOBUF], b"\xff\xff\xff", 400),
        (&[PROTOBUF], &good[..good.len() - 1], 400),
        (&[PROTOBUF, GZIP], b"this is not gzip", 400),
        (&[("content-type", "application/json")], b"{}", 415),
        (&[], &good, 415),
        (&[PROTOBUF, ("content-encoding", "zstd")], &good, 415),
        (&[("content-type", "application/x-protobuf; charset=utf-8")], &good, 200),
    ];
    for (headers, body, status) in cases {
        let answer = post(&agent, headers, body).await;
        assert_eq!(answer.status, status, "{headers:?}");
        if status != 200 {
            assert_eq!(answer.headers["content-type"], PROTOBUF.1);
            let error = tonic_types::Status::decode(&answer.body[..]).unwrap();
            assert!(error.code != 0 && !error.message.is_empty());
            assert!(!answer.headers.contains_key("retry-after"));
        }
    }
    assert_eq!(get(agent.addresses().http.unwrap(), "/v1/traces").await.status, 405);
    assert_eq!(get(agent.addresses().http.unwrap(), "/v1/logs").await.status, 404);
    assert_eq!((refusals(&agent, "malformed"), refusals(&agent, "unsupported")), (3, 3));

    // A span id of 7 bytes is no violation of protobuf; a field of the wrong wire type is.
    let status = raw_export(&agent, b"\x00\x00\x00\x00\x02\x08\x01").await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", agent.addresses().grpc.unwrap())).unwrap();
    let mut logs =
        TraceServiceClient::with_origin(channel.connect().await.unwrap(), "http://agent/other".parse().unwrap());
    assert_eq!(logs.export(spans(0, 1)).await.unwrap_err().code(), Code::Unimplemented);
    ledger_at_rest(&agent, 1).await;
    agent.stop().await;
}

/// Sends bytes that no client would make.
async fn raw_export(agent: &Pipeline, framed: &'static [u8]) -> Status {
    use http_body_util::{BodyExt as _, Full};
    use tonic::codegen::Service as _;
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", agent.addresses().grpc.unwrap())).unwrap();
    let mut channel = endpoint.connect().await.unwrap();
    let body = tonic::body::Body::new(Full::new(bytes::Bytes::from_static(framed)));
    let request = ::http::Request::post("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    match Status::from_header_map(response.headers()) {
        Some(status) => status,
        None => {
            let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
            Status::from_header_map(&trailers).unwrap()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_connections_at_once_lose_and_double_nothing() {
    const CONNECTIONS: u64 = 100;
    const REQUESTS: u64 = 5;
    const SPANS: u64 = 20;
    let upstream = Upstream::start().await;
    let agent = agent(&upstream.export("")).await;
    let address = agent.addresses().grpc.unwrap();
    let senders = (0..CONNECTIONS).map(|connection| async move {
        let mut client = support::client_to(address).await;
        for request in 0..REQUESTS {
            client.export(spans((connection * REQUESTS + request) * SPANS, SPANS)).await.unwrap();
        }
    });
    futures_util::future::join_all(senders).await;
    let all = CONNECTIONS * REQUESTS * SPANS;
    let came = upstream.spans(all).await;
    assert_eq!((came.len() as u64, came.values().sum::<u32>()), (all, u32::try_from(all).unwrap()));
    let ledger = ledger_at_rest(&agent, all).await;
    assert_eq!((ledger.received, ledger.exported), (all, all));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_memory_is_full_senders_keep_their_spans_and_nothing_acknowledged_is_lost() {
    let upstream = Upstream::start().await;
    upstream.always(Some(Script::Hang));
    let agent = agent(&upstream.export("queue_bytes: 1MiB, timeout: 300ms, batch_spans: 1")).await;
    let text = "x".repeat(100 << 10);
    let mut client = client(&agent).await;
    let mut acknowledged = HashSet::new();
    let mut refused = None;
    for number in 0..20 {
        match client.export(spans_with_text(number, 1, &text)).await {
            Ok(_) => drop(acknowledged.insert(number)),
            Err(status) => refused = Some(status),
        }
        // The worker has to have seen one before the next is judged.
        ledger_when(&agent, |ledger| ledger.held == acknowledged.len() as u64).await;
        while refused.is_none() && agent.metrics().budget().queued_bytes() < acknowledged.len() * text.len() {
            tokio::task::yield_now().await;
        }
    }
    let refused = refused.expect("the queue must fill up");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!((10..=11).contains(&acknowledged.len()), "{acknowledged:?}");
    let answer = post(&agent, &[PROTOBUF], &spans(100, 1).encode_to_vec()).await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"));
    assert!(refusals(&agent, "no_memory") >= 2);
    assert_eq!(get(agent.addresses().admin.unwrap(), "/readyz").await.status, 503);
    let ledger = agent.metrics().spans();
    assert_eq!(ledger.held, acknowledged.len() as u64);
    assert!(ledger.balances(), "{ledger:?}");

    upstream.always(None);
    let came = upstream.spans(acknowledged.len() as u64).await;
    assert_eq!(came.keys().copied().collect::<HashSet<_>>(), acknowledged);
    ledger_at_rest(&agent, acknowledged.len() as u64).await;
    assert_eq!(get(agent.addresses().admin.unwrap(), "/readyz").await.status, 200);
    client.export(spans(200, 1)).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let config =
        support::config(&format!("receive: {{grpc_listen: '{address}', http_listen: null}}\nadmin: {{listen: null}}"));
    let error = Pipeline::start(&config).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("ss -ltnp"), "{error}");
}
