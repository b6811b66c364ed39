//! One `TraceService/Export` call: bytes out, the fate of the spans back.
//!
//! The request is framed already and goes out as it is, so the channel is used below tonic's codec.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::message::Outgoing;
use crate::{config, observe};

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The specification's limit for a client; real answers have a few bytes.
const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// How long to wait for a connection: less than the deadline of a call, so that the error says what was wrong.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The configured upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("export.endpoint {endpoint:?} is not usable")]
    Endpoint { endpoint: String, source: tonic::transport::Error },
    #[error("export.headers: {name:?} is not a usable header")]
    Header { name: String },
}

/// Upstream, and how to speak to it. Clones share one connection.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    endpoint: Endpoint,
    channel: Channel,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
}

/// Upstream took the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Of its spans, how many upstream rejected for good.
    pub(super) rejected_spans: u64,
    /// What upstream had to say; empty on full success.
    pub(super) message: String,
}

// === impl Upstream ===

impl Upstream {
    pub(super) fn new(config: &config::Export, endpoint: &str) -> Result<Self, UpstreamError> {
        let failed = |source| UpstreamError::Endpoint { endpoint: endpoint.to_owned(), source };
        let endpoint = Endpoint::from_shared(endpoint.to_owned())
            .and_then(|endpoint| endpoint.user_agent(concat!("spanlet/", env!("CARGO_PKG_VERSION"))))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_lazy();
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let unusable = || UpstreamError::Header { name: name.clone() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            headers.append(key, HeaderValue::from_str(value).map_err(|_| unusable())?);
        }
        headers.insert(header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(Self { endpoint, channel, headers, gzip: config.gzip, timeout: config.timeout })
    }

    /// Sends one request and waits for its answer, at most for `export.timeout`.
    pub(super) async fn export(&self, request: &mut Outgoing) -> Result<Accepted, Status> {
        if self.gzip {
            request.compress();
        }
        match tokio::time::timeout(self.timeout, self.call(self.request(request))).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {:?}", self.timeout))),
        }
    }

    /// Forgets the connection: one that let a deadline pass may be dead without anyone having said so.
    pub(super) fn reconnect(&mut self) {
        self.channel = self.endpoint.connect_lazy();
    }

    fn request(&self, outgoing: &Outgoing) -> Request<Body> {
        let mut request = Request::new(Body::new(Frames(outgoing.frames().into())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(EXPORT_PATH);
        *request.headers_mut() = self.headers.clone();
        if outgoing.is_compressed() {
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        let timeout = format!("{}m", self.timeout.as_millis());
        if let (true, Ok(value)) = (timeout.len() <= 9, HeaderValue::from_str(&timeout)) {
            request.headers_mut().insert("grpc-timeout", value); // at most 8 digits and a unit
        }
        request
    }

    async fn call(&self, request: Request<Body>) -> Result<Accepted, Status> {
        let mut channel = self.channel.clone();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| unavailable(&error))?;
        let response = channel.call(request).await.map_err(|error| unavailable(&error))?;
        answer(response).await
    }
}

async fn answer(response: Response<Body>) -> Result<Accepted, Status> {
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return accepted_if_ok(status, &Bytes::new()); // an answer without a body, "trailers only"
    }
    if head.status != StatusCode::OK {
        return Err(Status::new(code_of(head.status), format!("upstream answered HTTP {}", head.status)));
    }
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Status::unavailable(format!("upstream's answer broke off: {error}")))?;
    let status = body.trailers().and_then(Status::from_header_map);
    let status = status.unwrap_or_else(|| Status::unknown("upstream's answer has no grpc-status"));
    accepted_if_ok(status, &body.to_bytes())
}

/// An answer that says OK is a success even if its message cannot be read: sending the spans again could only double them.
fn accepted_if_ok(status: Status, body: &Bytes) -> Result<Accepted, Status> {
    if status.code() != Code::Ok {
        return Err(status);
    }
    let message = match body.split_first_chunk::<5>() {
        Some(([0, ..], message)) => message,
        _ => &[],
    };
    let partial = ExportTraceServiceResponse::decode(message).unwrap_or_default().partial_success.unwrap_or_default();
    Ok(Accepted { rejected_spans: u64::try_from(partial.rejected_spans).unwrap_or(0), message: partial.error_message })
}

/// gRPC's "HTTP to gRPC status code mapping", for proxies that answer in upstream's place.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

fn unavailable(error: &dyn std::error::Error) -> Status {
    Status::unavailable(observe::explain(error))
}

/// A body that is there already.
#[derive(Debug)]
struct Frames(VecDeque<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|bytes| bytes.len() as u64).sum())
    }
}
