//! OTLP over gRPC: `opentelemetry.proto.collector.trace.v1.TraceService/Export`.
//!
//! The messages stay bytes: this service reads the one message of the call itself, because only so can the memory
//! budget bound it while it arrives.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::server::Connected;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::intake::{Intake, Refused};
use super::message::{Encoding, read_grpc_message};
use super::{READ_TIMEOUT, RETRY_DELAY};
use crate::batch::Source;
use crate::observe::Refusal;

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What a sender may have under way before we read it. Larger than the usual batch, and small against the memory
/// limit when every connection fills it.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;

/// An OTLP sender has one export under way, or a few; the rest of the number is room for proxies.
const STREAMS_MAX: u32 = 128;

/// `ExportTraceServiceResponse {}` as a gRPC message: uncompressed, length 0. On full success `partial_success` must
/// be unset (OTLP specification, "Full Success").
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// Serves connections until `stop`, then lets calls under way end.
pub(super) async fn serve<S, IO>(incoming: S, intake: Intake, stop: impl Future<Output = ()>)
where
    S: Stream<Item = std::io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_with_incoming_shutdown(TraceService { intake }, incoming, stop)
        .await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "OTLP/gRPC listener ended");
    }
}

#[derive(Debug, Clone)]
struct TraceService {
    intake: Intake,
}

impl Service<Request<Body>> for TraceService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // back-pressure is an answer, not a stalled connection
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let intake = self.intake.clone();
        async move {
            Ok(match export(&intake, request).await {
                Ok(()) => success(),
                Err(refused) => status(&intake.refuse(refused)).into_http(),
            })
        }
        .boxed()
    }
}

async fn export(intake: &Intake, request: Request<Body>) -> Result<(), Refused> {
    let encoding = check(&request)?;
    let reservation = intake.budget().reserve(0)?;
    let read = read_grpc_message(request.into_body(), encoding, intake.max_request_bytes(), reservation);
    let Ok(read) = tokio::time::timeout(READ_TIMEOUT, read).await else {
        return Err(Refused::new(Refusal::Incomplete, "the request did not arrive in time"));
    };
    let (message, reservation) = read?;
    intake.accept(Source::Grpc, message, reservation)
}

fn check(request: &Request<Body>) -> Result<Encoding, Refused> {
    let unsupported = |detail: String| Refused::new(Refusal::Unsupported, detail);
    if request.method() != Method::POST || request.uri().path() != EXPORT_PATH {
        return Err(unsupported(format!("{} {} is not served here", request.method(), request.uri().path())));
    }
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(unsupported("the content type is not application/grpc".to_owned()));
    }
    match request.headers().get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(other) => Err(unsupported(format!("grpc-encoding {} is not supported", other.escape_ascii()))),
    }
}

fn success() -> Response<Body> {
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(EMPTY_MESSAGE)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    response
}

/// Retryable exactly where trying again can help (OTLP specification, "Failures" and "OTLP/gRPC Throttling").
fn status(refused: &Refused) -> Status {
    let detail = refused.detail.as_str();
    match refused.reason {
        Refusal::NoMemory | Refusal::QueueFull | Refusal::Stopping => {
            let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
            Status::with_error_details(Code::Unavailable, detail, details)
        }
        Refusal::TooLarge => Status::resource_exhausted(detail),
        Refusal::Malformed => Status::invalid_argument(detail),
        Refusal::Incomplete => Status::deadline_exceeded(detail),
        Refusal::Unsupported => {
            let mut status = Status::unimplemented(detail);
            let encodings = "gzip,identity".parse().expect("visible ASCII");
            status.metadata_mut().insert("grpc-accept-encoding", encodings);
            status
        }
    }
}
