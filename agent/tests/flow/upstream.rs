//! A fake upstream: an OTLP/gRPC server that counts spans and answers as scripted.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::support::PATIENCE;

/// What to do with a request.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    Refuse(Status),
    /// Take it, but say that so many spans were rejected.
    Reject(i64),
    /// Never answer, and take nothing.
    Hang,
}

#[derive(Debug, Default)]
struct Seen {
    /// How often each span id was accepted.
    spans: BTreeMap<u64, u32>,
    calls: u64,
    batches: Vec<usize>,
    last_span: Option<Span>,
    metadata: MetadataMap,
    script: VecDeque<Script>,
    /// What to do when the script is through.
    always: Option<Script>,
}

/// The server; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    service: Service,
    /// Its own, because only with it do the connections go that the server has accepted.
    runtime: Option<Runtime>,
}

#[derive(Debug, Clone)]
struct Service {
    seen: Arc<Mutex<Seen>>,
    accepted: Arc<watch::Sender<u64>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), &[]).await
    }

    pub(crate) async fn scripted(script: &[Script]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn start_at(address: SocketAddr, script: &[Script]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(TcpListener::bind(address)).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen { script: script.iter().cloned().collect(), ..Seen::default() };
        let service = Service { seen: Arc::new(Mutex::new(seen)), accepted: Arc::new(watch::Sender::new(0)) };
        let server = TraceServiceServer::new(service.clone()).accept_compressed(CompressionEncoding::Gzip);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming);
        runtime.spawn(async move { server.await.unwrap() });
        Self { address, service, runtime: Some(runtime) }
    }

    /// The line that makes the agent send here.
    pub(crate) fn export(&self, more: &str) -> String {
        format!("export: {{endpoint: 'http://{}', batch_delay: 1ms, {more}}}", self.address)
    }

    /// Waits until so many spans in all were accepted, and returns how often each was.
    pub(crate) async fn spans(&self, count: u64) -> BTreeMap<u64, u32> {
        let mut accepted = self.service.accepted.subscribe();
        let enough = tokio::time::timeout(PATIENCE, accepted.wait_for(|accepted| *accepted >= count)).await;
        assert!(enough.is_ok(), "{} of {count} spans came", self.accepted());
        self.service.seen.lock().unwrap().spans.clone()
    }

    pub(crate) fn accepted(&self) -> u64 {
        *self.service.accepted.borrow()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.service.seen.lock().unwrap().calls
    }

    /// The number of spans of each request that was accepted.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.service.seen.lock().unwrap().batches.clone()
    }

    /// The last span that was accepted.
    pub(crate) fn last_span(&self) -> Span {
        self.service.seen.lock().unwrap().last_span.clone().unwrap()
    }

    /// The metadata of the last request.
    pub(crate) fn metadata(&self) -> MetadataMap {
        self.service.seen.lock().unwrap().metadata.clone()
    }

    /// What to do with every request from now on.
    pub(crate) fn always(&self, script: Option<Script>) {
        self.service.seen.lock().unwrap().always = script;
    }

    /// Closes the port and every connection.
    pub(crate) async fn die(mut self) {
        let runtime = self.runtime.take().expect("it dies once");
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Service {
    fn accept(&self, request: &ExportTraceServiceRequest) {
        let spans = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: Vec<&Span> = spans.flat_map(|scope| &scope.spans).collect();
        let mut seen = self.seen.lock().unwrap();
        seen.batches.push(spans.len());
        let count = spans.len() as u64;
        for span in spans {
            let id = u64::from_be_bytes(span.span_id.as_slice().try_into().unwrap());
            *seen.spans.entry(id).or_default() += 1;
            seen.last_span = Some(span.clone());
        }
        drop(seen);
        self.accepted.send_modify(|accepted| *accepted += count);
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let script = {
            let mut seen = self.seen.lock().unwrap();
            seen.calls += 1;
            seen.metadata = request.metadata().clone();
            seen.script.pop_front().or_else(|| seen.always.clone())
        };
        let partial_success = match script {
            Some(Script::Hang) => std::future::pending().await,
            Some(Script::Refuse(status)) => return Err(status),
            Some(Script::Reject(rejected_spans)) => {
                Some(ExportTracePartialSuccess { rejected_spans, error_message: "as scripted".to_owned() })
            }
            None => None,
        };
        self.accept(request.get_ref());
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}
