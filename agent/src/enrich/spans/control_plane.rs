//! Spans of kube-apiserver: they get no pod, but tell who asked for one.
//!
//! ```text
//!  POST …/pods               ─ links ─► the caller's span      (the API server does not take callers for parents)
//!    └─ Create
//!         └─ Create etcd3    key=/pods/<namespace>/<name>      (the path has no name when a pod is made)
//!  POST …/pods/<name>/binding ─ links ─► the scheduler's span
//! ```

use spanlet_otlp::{Span, SpanKind};

use super::{Family, MAX_ANCESTORS};
use crate::enrich::Enricher;
use crate::enrich::requests::Verb;

/// The value of `status.code` that says that the span failed.
const STATUS_ERROR: u8 = 2;

impl Enricher {
    /// Notes the request that the span is of, if that made or bound a pod.
    pub(super) fn learn_from_control_plane<'a>(&mut self, span: &Span<'a>, family: &mut Family<'a>) {
        let asked = match span.kind() {
            SpanKind::Internal => created(span).map(|pod| (Verb::Create, pod)),
            SpanKind::Server => bound(span).map(|pod| (Verb::Bind, pod)),
            _ => None,
        };
        let Some((verb, pod)) = asked.filter(|_| span.status_code() != STATUS_ERROR) else { return };
        let root = root(span, family);
        let callers = root.links().map(|link| (link.trace_id, link.span_id));
        let spans = std::iter::once((root.trace_id(), root.span_id())).chain(callers);
        self.requests.note(verb, pod, span.start_unix_nano(), spans);
    }
}

/// Namespace and name of the pod that the span wrote into the store for the first time.
fn created<'a>(span: &Span<'a>) -> Option<(&'a str, &'a str)> {
    if span.name() != "Create etcd3" || text(span, "resource") != Some("pods") {
        return None;
    }
    let (_, pod) = text(span, "key")?.rsplit_once("/pods/")?; // a prefix such as /registry may come first
    pod.split_once('/')
}

/// Namespace and name of the pod that the request bound to a node.
fn bound<'a>(span: &Span<'a>) -> Option<(&'a str, &'a str)> {
    if !span.name().ends_with("/pods/{:name}/binding") {
        return None;
    }
    let path = text(span, "http.target").or_else(|| text(span, "url.path"))?;
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let (namespace, rest) = path.strip_prefix("/api/v1/namespaces/")?.split_once("/pods/")?;
    Some((namespace, rest.strip_suffix("/binding")?))
}

/// The span that the request began with, as far as it came along.
fn root<'a>(span: &Span<'a>, family: &mut Family<'a>) -> Span<'a> {
    let mut root = *span;
    for _ in 0..MAX_ANCESTORS {
        let parent = root.parent_span_id().and_then(|parent| family.find(span.trace_id(), parent));
        let Some(parent) = parent else { break };
        root = family.request.span(parent);
    }
    root
}

fn text<'a>(span: &Span<'a>, key: &str) -> Option<&'a str> {
    span.attribute(key)?.as_str()
}
