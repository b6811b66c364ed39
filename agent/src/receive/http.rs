//! OTLP over HTTP: `POST /v1/traces` with a protobuf body.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use prost::Message as _;

use super::intake::{Intake, Refused};
use super::message::{Encoding, read_body};
use super::{READ_TIMEOUT, RETRY_DELAY};
use crate::batch::Source;
use crate::listen::Tcp;
use crate::observe::Refusal;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Serves connections until `stop`, then lets requests under way end.
pub(super) async fn serve(listener: Tcp, intake: Intake, stop: impl Future<Output = ()> + Send + 'static) {
    let router = Router::new().route("/v1/traces", post(export)).with_state(intake);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop).await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "OTLP/HTTP listener ended");
    }
}

async fn export(State(intake): State<Intake>, request: Request<Body>) -> Response<Body> {
    match take(&intake, request).await {
        // `ExportTraceServiceResponse {}`: on full success `partial_success` must be unset, so no bytes at all.
        Ok(()) => ([(header::CONTENT_TYPE, PROTOBUF)], Bytes::new()).into_response(),
        Err(refused) => answer(&intake.refuse(refused)),
    }
}

async fn take(intake: &Intake, request: Request<Body>) -> Result<(), Refused> {
    let encoding = check(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // The length of a compressed body says nothing about what it will take.
    let expected = length.filter(|_| encoding == Encoding::Identity);
    let reservation = intake.budget().reserve(0)?;
    let read = read_body(request.into_body(), encoding, expected, intake.max_request_bytes(), reservation);
    let Ok(read) = tokio::time::timeout(READ_TIMEOUT, read).await else {
        return Err(Refused::new(Refusal::Incomplete, "the request did not arrive in time"));
    };
    let (message, reservation) = read?;
    intake.accept(Source::Http, message, reservation)
}

fn check(headers: &HeaderMap) -> Result<Encoding, Refused> {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !media_type.eq_ignore_ascii_case(b"application/x-protobuf") {
        let detail = format!(
            "content type {:?} is not supported; send application/x-protobuf",
            media_type.escape_ascii().to_string()
        );
        return Err(Refused::new(Refusal::Unsupported, detail));
    }
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(other) => {
            let detail = format!("content encoding {} is not supported; send gzip or none", other.escape_ascii());
            Err(Refused::new(Refusal::Unsupported, detail))
        }
    }
}

/// An error as the specification wants it: a `google.rpc.Status` in the body, `Retry-After` where trying again helps.
fn answer(refused: &Refused) -> Response<Body> {
    let (http, grpc) = match refused.reason {
        Refusal::NoMemory | Refusal::QueueFull | Refusal::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, tonic::Code::Unavailable)
        }
        Refusal::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, tonic::Code::ResourceExhausted),
        Refusal::Malformed => (StatusCode::BAD_REQUEST, tonic::Code::InvalidArgument),
        Refusal::Incomplete => (StatusCode::REQUEST_TIMEOUT, tonic::Code::DeadlineExceeded),
        Refusal::Unsupported => (StatusCode::UNSUPPORTED_MEDIA_TYPE, tonic::Code::Unimplemented),
    };
    let status = tonic_types::Status { code: grpc as i32, message: refused.detail.clone(), details: Vec::new() };
    let mut response = (http, [(header::CONTENT_TYPE, PROTOBUF)], status.encode_to_vec()).into_response();
    if http == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_DELAY.as_secs().into());
    }
    response
}
