//! What the spans of ours have in common: resource, scope, the pod's names, a call's phases and outcome.

use spanlet_otlp::build::{NewRequest, NewSpan, Status};

use crate::call::Call;
use crate::config;
use crate::pod::Owner;

const SCOPE: &str = "spanlet";
const SERVICE: &str = "spanlet";

/// The canonical names of gRPC's status codes in the order of their numbers (grpc `statuscodes.md`).
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A request of the agent's own resource, which carries what every resource of the node does.
pub(super) fn empty_request(config: &config::Enrich) -> NewRequest {
    let version = env!("CARGO_PKG_VERSION");
    let mut request = NewRequest::new(SCOPE, version);
    request.resource_str("service.name", SERVICE);
    request.resource_str("service.version", version);
    let node = config.node_name.as_deref();
    let own = [("k8s.node.name", node), ("host.name", node), ("k8s.cluster.name", config.cluster_name.as_deref())];
    let configured = config.resource_attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let configured: Vec<(&str, &str)> = configured.filter(|(key, _)| !key.starts_with("service.")).collect();
    let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let own = own.filter(|(key, _)| configured.iter().all(|(taken, _)| taken != key));
    for (key, value) in configured.iter().copied().chain(own) {
        request.resource_str(key, value);
    }
    request
}

/// Whose it is.
pub(super) fn add_owner(span: &mut NewSpan, owner: &Owner) {
    owner.attributes().for_each(|(key, value)| span.str(key, value));
}

/// RPC attributes by the current semantic conventions, and what the kernel measured.
pub(super) fn add_call(span: &mut NewSpan, call: &Call) {
    span.str("rpc.system.name", "grpc");
    if let Some(method) = &call.method {
        span.str("rpc.method", method);
    }
    span.str("server.address", &call.socket.path);
    let points = &call.points;
    for (key, value) in [
        ("spanlet.call.request_wait_ns", points.request_wait_ns()),
        ("spanlet.call.handling_ns", points.handling_ns()),
        ("spanlet.call.response_send_ns", points.response_send_ns()),
        ("spanlet.call.response_wait_ns", points.response_wait_ns()),
    ] {
        if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
            span.int(key, value);
        }
    }
    let Some(status) = call.status else { return };
    let name = GRPC_CODES.get(usize::from(status.code)).copied();
    let name = name.map_or_else(|| status.code.to_string(), str::to_owned);
    span.str("rpc.response.status_code", &name);
    if status.code != 0 {
        span.str("error.type", &name);
        span.status(Status::Error, "");
    }
}
