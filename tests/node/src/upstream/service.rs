//! The trace service on raw requests.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Answer, Behaviour, Received, ReceivedRequest};
use crate::raw::{RawCodec, TRACE_SERVICE};

/// The OTLP specification's recommended limit.
const MAX_REQUEST_BYTES: usize = 64 << 20;

#[derive(Debug, Clone)]
pub(super) struct TraceService {
    received: Arc<Received>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl TraceService {
    pub(super) fn new(received: Arc<Received>, behaviour: Arc<Mutex<Behaviour>>) -> Self {
        Self { received, behaviour }
    }

    async fn answer(self, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let behaviour = self.behaviour.lock().expect("no thread panics while it holds the lock").clone();
        if !behaviour.delay.is_zero() {
            tokio::time::sleep(behaviour.delay).await;
        }
        match behaviour.answer {
            Answer::Accept => {
                let (headers, _, body) = request.into_parts();
                let accepted = self.received.accept(ReceivedRequest { headers, body });
                accepted.map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
                Ok(Response::new(Bytes::new())) // an ExportTraceServiceResponse without partial success
            }
            Answer::Refuse { code, retry_after } => {
                self.received.refuse();
                let mut details = ErrorDetails::new();
                if retry_after.is_some() {
                    details.set_retry_info(retry_after);
                }
                Err(Status::with_error_details(code, "refused as asked", details))
            }
        }
    }
}

impl NamedService for TraceService {
    const NAME: &'static str = TRACE_SERVICE;
}

impl UnaryService<Bytes> for TraceService {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl tower::Service<http::Request<Body>> for TraceService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec)
                .accept_compressed(CompressionEncoding::Gzip)
                .apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
            Ok(grpc.unary(service, request).await)
        })
    }
}
