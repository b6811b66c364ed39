//! Where an agent's process sends what it has enriched.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::agent::PATIENCE;

/// A running OTLP/gRPC server.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    arrived: Mutex<mpsc::Receiver<ExportTraceServiceRequest>>,
    _server: JoinSet<()>,
}

struct Service(mpsc::Sender<ExportTraceServiceRequest>);

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, arrived) = mpsc::channel(64);
        let service = TraceServiceServer::new(Service(sender)).accept_compressed(CompressionEncoding::Gzip);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, arrived: Mutex::new(arrived), _server: tasks }
    }

    /// The next request.
    pub(crate) async fn next(&self) -> ExportTraceServiceRequest {
        let mut arrived = self.arrived.lock().await;
        tokio::time::timeout(PATIENCE, arrived.recv()).await.expect("a request in time").expect("the server runs")
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
