//! What the shape of a call of the CRI tells of its method, where the wire does not: evidence, never taken for the name.
//!
//! Field numbers and types are those of cri-api `api.proto`. Methods are those that kubelet calls, with its default feature gates
//! unless the shape says otherwise.

use super::subject::{self, Field};
use crate::call::{Body, Guess, SocketKind, Subject};

/// kubelet's deadline of RunPodSandbox, and of no other call that names neither a sandbox nor a container: twice its
/// `--runtime-request-timeout`, whose default is 2 min.
const RUN_SANDBOX_TIMEOUT_NS: u64 = 240_000_000_000;

const RUN_SANDBOX: &[&str] = &["runtime.v1.RuntimeService/RunPodSandbox"];
const CREATE_CONTAINER: &[&str] = &["runtime.v1.RuntimeService/CreateContainer"];
const OF_IMAGE: &[&str] = &[
    "runtime.v1.ImageService/ImageStatus",
    "runtime.v1.ImageService/PullImage",
    "runtime.v1.ImageService/RemoveImage",
    "runtime.v1.ImageService/ListImages", // its filter names an image
];
/// With a deadline it is no pull: kubelet gives that one none.
const OF_IMAGE_IN_TIME: &[&str] = &[
    "runtime.v1.ImageService/ImageStatus",
    "runtime.v1.ImageService/RemoveImage",
    "runtime.v1.ImageService/ListImages",
];
/// What kubelet asks without saying anything.
const OF_NOTHING: &[&str] = &[
    "runtime.v1.RuntimeService/ListPodSandbox",
    "runtime.v1.RuntimeService/ListContainers",
    "runtime.v1.RuntimeService/Status",
    "runtime.v1.RuntimeService/Version",
    "runtime.v1.RuntimeService/RuntimeConfig",
    "runtime.v1.RuntimeService/GetContainerEvents",
    "runtime.v1.ImageService/ListImages",
    "runtime.v1.ImageService/ImageFsInfo",
];
const VERSION: &[&str] = &["runtime.v1.RuntimeService/Version"];
/// The lists are those of the gate `CRIListStreaming`.
const STREAMS: &[&str] = &[
    "runtime.v1.RuntimeService/GetContainerEvents",
    "runtime.v1.RuntimeService/StreamPodSandboxes",
    "runtime.v1.RuntimeService/StreamContainers",
    "runtime.v1.RuntimeService/StreamContainerStats",
    "runtime.v1.RuntimeService/StreamPodSandboxStats",
    "runtime.v1.RuntimeService/StreamPodSandboxMetrics",
    "runtime.v1.ImageService/StreamImages",
];

/// The shape of an unnamed call.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    pub fields: &'a [Field],
    /// The request has no bytes.
    pub is_empty: bool,
    /// The response's field 1 is an id.
    pub answers_id: bool,
    /// `grpc-timeout`, if it is known.
    pub timeout_ns: Option<u64>,
    /// It has more than one message.
    pub streaming: bool,
}

/// What a shape tells; `None` on sockets whose servers are anybody's.
pub fn of(kind: SocketKind, shape: Shape<'_>) -> Option<Guess> {
    if kind != SocketKind::Cri {
        return None;
    }
    let body = if shape.is_empty { Body::Empty } else { body(shape.fields) };
    let methods = match body {
        Body::Metadata => RUN_SANDBOX,
        Body::Id if shape.answers_id => CREATE_CONTAINER,
        Body::Nested if shape.timeout_ns.is_some() => OF_IMAGE_IN_TIME,
        Body::Nested => OF_IMAGE,
        Body::NoField | Body::Empty if shape.streaming => STREAMS,
        Body::NoField if shape.timeout_ns == Some(RUN_SANDBOX_TIMEOUT_NS) => RUN_SANDBOX,
        Body::Empty => OF_NOTHING,
        Body::Number => VERSION,
        Body::Id | Body::Text | Body::NoField => &[],
    };
    Some(Guess { methods, body })
}

fn body(fields: &[Field]) -> Body {
    let Some(field) = fields.iter().find(|field| field.number == 1) else { return Body::NoField };
    let all = |is: fn(&u8) -> bool| !field.cut && field.bytes.iter().all(is);
    match (field.nested, subject::is_digits(field)) {
        (false, true) => Body::Id,
        (false, false) if all(|byte| byte.is_ascii_digit() || *byte == b'.') => Body::Number,
        (true, false) if !field.cut && is_metadata(fields) => Body::Metadata,
        (true, false) if all(u8::is_ascii_graphic) => Body::Nested,
        _ => Body::Text, // a list of what has this id, among others
    }
}

fn is_metadata(fields: &[Field]) -> bool {
    matches!(subject::of(SocketKind::Cri, None, fields), Subject::Sandbox { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Shape<'static> =
        Shape { fields: &[], is_empty: false, answers_id: false, timeout_ns: None, streaming: false };

    fn guess(nested: bool, bytes: &[u8], answers_id: bool, timeout_ns: Option<u64>) -> &'static [&'static str] {
        let fields = &[Field { number: 1, nested, cut: false, bytes: bytes.to_vec() }];
        of(SocketKind::Cri, Shape { fields, answers_id, timeout_ns, ..NOTHING }).unwrap().methods
    }

    #[test]
    fn a_body_narrows_down_what_the_method_can_be() {
        let id = [b'a'; 64];
        let metadata = b"\x0a\x03web\x12\x03uid\x1a\x07default";
        let minutes_2 = Some(120_000_000_000);
        assert_eq!(guess(true, metadata, false, None), RUN_SANDBOX);
        assert_eq!(guess(false, &id, true, None), CREATE_CONTAINER);
        assert_eq!(guess(true, b"registry.k8s.io/pause:3.9", false, minutes_2), OF_IMAGE_IN_TIME);
        assert_eq!(guess(true, b"registry.k8s.io/pause:3.9", false, None), OF_IMAGE);
        assert_eq!(guess(false, b"0.1.0", false, None), VERSION);
        for (nested, bytes) in [(false, &id[..]), (true, &id[..]), (false, b"text"), (true, b"\x0a\x01a")] {
            assert_eq!(guess(nested, bytes, false, minutes_2), &[""; 0][..]);
        }
    }

    #[test]
    fn without_a_field_the_deadline_and_the_answer_may_tell() {
        let guess = |shape| of(SocketKind::Cri, shape).unwrap().methods;
        let timeout = |ns| Shape { timeout_ns: Some(ns), ..NOTHING };
        assert_eq!(guess(timeout(RUN_SANDBOX_TIMEOUT_NS)), RUN_SANDBOX);
        assert_eq!(guess(timeout(120_000_000_000)), &[""; 0][..]);
        assert_eq!(guess(Shape { streaming: true, ..NOTHING }), STREAMS);
        assert_eq!(guess(Shape { is_empty: true, ..timeout(RUN_SANDBOX_TIMEOUT_NS) }), OF_NOTHING);
        assert_eq!(of(SocketKind::Csi, NOTHING), None);
    }
}
