//! The admin listener: health, metrics and the debug API.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, Query as UrlQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde::Deserialize;
use tokio::sync::watch;

use super::Metrics;
use super::query::{Queries, Query, Unanswered};
use crate::api;
use crate::config;
use crate::listen::{ListenError, Tcp};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin listener shows.
#[derive(Debug, Clone)]
pub struct Subject {
    pub metrics: Metrics,
    pub queries: Queries,
    /// Whether the agent receives.
    pub receiving: watch::Receiver<bool>,
    pub capture: watch::Receiver<api::CaptureStatus>,
}

/// Bound admin listeners, not yet served.
#[derive(Debug)]
pub struct Admin {
    all: Option<Tcp>,
    metrics: Option<Tcp>,
}

// === impl Admin ===

impl Admin {
    /// Binds what is configured.
    ///
    /// # Errors
    /// [`ListenError`] names the address and how to find who holds it.
    pub async fn bind(config: &config::Admin) -> Result<Self, ListenError> {
        let all = match config.listen {
            Some(address) => Some(Tcp::bind("the admin listener", address).await?),
            None => None,
        };
        let metrics = match config.metrics_listen {
            Some(address) => Some(Tcp::bind("the metrics listener", address).await?),
            None => None,
        };
        Ok(Self { all, metrics })
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.all.as_ref().map(Tcp::address)
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Tcp::address)
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, subject: Subject) {
        let metrics = Router::new().route("/metrics", get(metrics_text));
        let all = metrics
            .clone()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/api/v1/status", get(status))
            .route("/api/v1/pods", get(pods))
            .route("/api/v1/pods/{namespace}/{name}", get(pod))
            .route("/api/v1/calls", get(calls));
        tokio::join!(serve_one(self.all, all, subject.clone()), serve_one(self.metrics, metrics, subject));
    }
}

async fn serve_one(listener: Option<Tcp>, router: Router<Subject>, subject: Subject) {
    let Some(listener) = listener else { return };
    let router = router.fallback(no_such_path).method_not_allowed_fallback(only_get).with_state(subject);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "admin listener ended");
    }
}

/// Alive: the task that everything passes through is there.
async fn livez(State(subject): State<Subject>) -> Result<&'static str, ApiError> {
    if subject.queries.is_open() { Ok("ok\n") } else { Err(ApiError::unavailable("the pipeline has ended")) }
}

/// Ready: receiving and able to buffer. Says nothing about probes or upstream.
async fn readyz(State(subject): State<Subject>) -> Result<&'static str, ApiError> {
    if !*subject.receiving.borrow() {
        return Err(ApiError::unavailable("not receiving"));
    }
    if !subject.metrics.budget().has_room() {
        return Err(ApiError::unavailable("no room for more spans: upstream does not take them"));
    }
    Ok("ok\n")
}

async fn metrics_text(State(subject): State<Subject>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], subject.metrics.render()).into_response()
}

async fn status(State(subject): State<Subject>) -> Json<api::Status> {
    let capture = subject.capture.borrow().clone();
    Json(api::Status { capture, spans: subject.metrics.spans(), events: subject.metrics.events().snapshot() })
}

async fn pods(State(subject): State<Subject>) -> Result<Json<Vec<api::PodSummary>>, ApiError> {
    Ok(Json(subject.queries.ask(|answer| Query::Pods { answer }).await?))
}

async fn pod(
    State(subject): State<Subject>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<api::PodTimeline>, ApiError> {
    let missing = format!("no pod {namespace}/{name} was seen on this node");
    let timeline = subject.queries.ask(|answer| Query::Pod { namespace, name, answer }).await?;
    timeline.map(Json).ok_or(ApiError { status: StatusCode::NOT_FOUND, message: missing })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallsParameters {
    method: Option<String>,
    since: Option<String>,
}

async fn calls(
    State(subject): State<Subject>,
    parameters: Result<UrlQuery<CallsParameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<api::CallEntry>>, ApiError> {
    let bad = |message: String| ApiError { status: StatusCode::BAD_REQUEST, message };
    let UrlQuery(CallsParameters { method, since }) = parameters.map_err(|error| bad(error.body_text()))?;
    let since_ns = match since.as_deref() {
        Some(text) => {
            let wrong = || bad(format!("since={text}: neither Unix nanoseconds nor a time ago, such as 90s or 5m"));
            Some(parse_since(text, SystemTime::now()).ok_or_else(wrong)?)
        }
        None => None,
    };
    Ok(Json(subject.queries.ask(|answer| Query::Calls { method, since_ns, answer }).await?))
}

/// `since` as Unix nanoseconds: a plain number is that, `90s`, `5m` and `2h` are so long before `now`.
fn parse_since(text: &str, now: SystemTime) -> Option<u64> {
    if let Ok(nanoseconds) = text.parse() {
        return Some(nanoseconds);
    }
    let unit = text.char_indices().last()?;
    let number: u64 = text[..unit.0].parse().ok()?;
    let seconds = match unit.1 {
        's' => number,
        'm' => number.checked_mul(60)?,
        'h' => number.checked_mul(3_600)?,
        _ => return None,
    };
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since_epoch.saturating_sub(Duration::from_secs(seconds)).as_nanos()).ok()
}

async fn no_such_path() -> ApiError {
    ApiError { status: StatusCode::NOT_FOUND, message: "no such path".to_owned() }
}

async fn only_get() -> ApiError {
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, message: "only GET is served".to_owned() }
}

/// An error as `{"error": "…"}`.
#[derive(Debug)]
struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    fn unavailable(message: &str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_owned() }
    }
}

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        Self::unavailable(&error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.message }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_moment_or_a_time_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let cases = [
            ("1700000000000000000", Some(1_700_000_000_000_000_000)),
            ("90s", Some(9_910_000_000_000)),
            ("5m", Some(9_700_000_000_000)),
            ("3h", Some(0)),
            ("", None),
            ("m", None),
            ("5d", None),
            ("-5s", None),
            ("5µ", None),
            ("99999999999999999h", None),
        ];
        for (text, since) in cases {
            assert_eq!(parse_since(text, now), since, "{text:?}");
        }
    }
}
