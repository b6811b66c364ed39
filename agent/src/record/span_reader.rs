//! Reads from a span what the recorder keeps.

use spanlet_otlp::{Span, SpanKind, Value};

use crate::pod::Owner;

use super::evidence::{SpanKey, SpanRole, SpanSeen, container_name};
use super::names::Names;

/// CRI services of kubelet and the runtimes: `runtime.v1.RuntimeService/…`, `runtime.v1.ImageService/…`.
const CRI_PREFIX: &str = "runtime.v1.";

/// `Status.code` of the trace specification.
const STATUS_ERROR: u8 = 2;

/// The gRPC codes in order of their numbers, as kubelet 1.36 writes them (`rpc.response.status_code`); 1.37 writes them in
/// upper case with underscores, as the semantic conventions ask.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What part the span plays, by its name and kind.
pub(super) fn role(span: &Span<'_>) -> SpanRole {
    let name = span.name();
    match span.kind() {
        SpanKind::Client if name.starts_with(CRI_PREFIX) => SpanRole::CriClient,
        SpanKind::Server if name.starts_with(CRI_PREFIX) => SpanRole::CriServer,
        SpanKind::Internal => match name {
            "syncPod" => SpanRole::Sync,
            "syncTerminatingPod" => SpanRole::SyncTerminating,
            "syncTerminatedPod" => SpanRole::SyncTerminated,
            _ => SpanRole::Inner,
        },
        _ => SpanRole::Inner,
    }
}

pub(super) fn read(span: &Span<'_>, role: SpanRole, owner: Option<&Owner>, names: &mut Names) -> SpanSeen {
    let is_cri = matches!(role, SpanRole::CriClient | SpanRole::CriServer);
    let container = owner.and_then(|owner| owner.container.as_ref());
    let known_id = container.map(|container| container.id.as_str()).filter(|id| !id.is_empty());
    SpanSeen {
        key: SpanKey { trace_id: span.trace_id(), span_id: span.span_id() },
        parent: span.parent_span_id(),
        name: names.intern(span.name()),
        role,
        started_ns: span.start_unix_nano(),
        ended_ns: span.end_unix_nano(),
        status: is_cri.then(|| grpc_status(span)).flatten(),
        error: span.status_code() == STATUS_ERROR,
        update_type: (role == SpanRole::Sync).then(|| text(span, "k8s.pod.update_type")).flatten(),
        container_id: known_id.map(Into::into).or_else(|| text(span, "container.id")),
        container_name: container_name(owner).or_else(|| runtime_container_name(span)),
        image: text(span, "image.ref").or_else(|| text(span, "container.image.ref")),
    }
}

/// containerd 2 calls a container `<container>_<pod>_<namespace>_<uid>_<attempt>`; Kubernetes names hold no underscore.
fn runtime_container_name(span: &Span<'_>) -> Option<Box<str>> {
    let name = span.attribute("container.name").and_then(|value| value.as_str())?;
    name.split_once('_').map(|(container, _)| container.into())
}

/// Old spelling: a number; since kubelet 1.36: the code's name.
fn grpc_status(span: &Span<'_>) -> Option<u8> {
    if let Some(code) = span.attribute("rpc.grpc.status_code").and_then(|value| value.as_int()) {
        return u8::try_from(code).ok();
    }
    match span.attribute("rpc.response.status_code")? {
        Value::Str(name) => grpc_code(name),
        Value::Int(code) => u8::try_from(code).ok(),
        _ => None,
    }
}

fn grpc_code(name: &str) -> Option<u8> {
    let plain: String = name.chars().filter(|c| *c != '_').collect();
    let plain = if plain.eq_ignore_ascii_case("Cancelled") { "Canceled" } else { &plain };
    GRPC_CODES.iter().position(|code| code.eq_ignore_ascii_case(plain)).and_then(|code| u8::try_from(code).ok())
}

fn text(span: &Span<'_>, key: &str) -> Option<Box<str>> {
    span.attribute(key).and_then(|value| value.as_str()).filter(|text| !text.is_empty()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_of_both_spellings_are_read() {
        for (name, code) in [
            ("OK", Some(0)),
            ("DeadlineExceeded", Some(4)),
            ("DEADLINE_EXCEEDED", Some(4)),
            ("CANCELLED", Some(1)),
            ("UNAUTHENTICATED", Some(16)),
            ("Code(99)", None),
        ] {
            assert_eq!(grpc_code(name), code, "{name}");
        }
    }
}
