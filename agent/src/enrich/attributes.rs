//! What owned spans and all resources are told. An attribute that is there already stays as it is.

use std::sync::Arc;

use spanlet_otlp::{Additions, Resource, Shared, Span, TraceRequest, Value};

use crate::config::Enrich;
use crate::pod::{Container, Owner, Pod};

/// Adds owners' names and ids to the spans of one request. Spans of one owner often stand together, so what the last span
/// was given is given to the next.
#[derive(Debug, Default)]
pub(super) struct OwnerAttributes {
    last: Option<Given>,
}

#[derive(Debug)]
struct Given {
    pod: Arc<Pod>,
    container: Option<Arc<Container>>,
    attributes: Shared,
}

/// Of the keys that are added, with rare exceptions among those that a source told.
const PREFIXES: [&[u8]; 2] = [b"k8s.", b"container."];

impl OwnerAttributes {
    /// Adds the owner's attributes to span `index`.
    pub(super) fn add(&mut self, additions: &mut Additions, index: usize, span: &Span<'_>, owner: &Owner) {
        let is_ours = |key: &[u8]| PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        let has_some = span.attribute_keys().any(is_ours);
        if let Some(last) = self.last.as_ref().filter(|last| !has_some && last.is_of(owner)) {
            additions.span_shared(index, last.attributes);
            return;
        }
        let told = || owner.attributes().map(|(key, value)| (key, Value::Str(value)));
        if has_some || !owner.pod.attributes.iter().all(|(key, _)| is_ours(key.as_bytes())) {
            let is_lacking = |key: &str| span.attribute_keys().all(|present| present != key.as_bytes());
            additions.span_attributes(index, told().filter(|(key, _)| is_lacking(key)));
            return;
        }
        let attributes = additions.span_attributes_shared(index, told());
        self.last = Some(Given { pod: Arc::clone(&owner.pod), container: owner.container.clone(), attributes });
    }
}

impl Given {
    fn is_of(&self, owner: &Owner) -> bool {
        let is_same_container = match (&self.container, &owner.container) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same_container && Arc::ptr_eq(&self.pod, &owner.pod)
    }
}

/// Marks a span that began after the span it is a child of was over.
pub(super) fn mark_detached(additions: &mut Additions, index: usize, span: &Span<'_>) {
    if span.attribute("spanlet.detached").is_none() {
        additions.span_bool(index, "spanlet.detached", true);
    }
}

/// Gives a shim the service name that all shims share. What it was called moves to `service.instance.id`, unless that is
/// taken. The one place where something that came in is changed, and only when the user asks for it.
pub(super) fn collapse_shim(additions: &mut Additions, request: &TraceRequest, index: usize) {
    let resource = request.resource(index);
    let Some(name) = resource.attribute("service.name").and_then(|name| name.as_str()) else { return };
    if additions.resource_replace_str(request, index, "service.name", "containerd-shim")
        && resource.attribute("service.instance.id").is_none()
    {
        additions.resource_str(index, "service.instance.id", name);
    }
}

/// Links a span to what caused it, each once. Nothing becomes a parent: the trace stays whose it is.
pub(super) fn add_links(
    additions: &mut Additions,
    index: usize,
    span: &Span<'_>,
    causes: impl Iterator<Item = ([u8; 16], [u8; 8])>,
) {
    let mut linked: Vec<_> = span.links().map(|link| (link.trace_id, link.span_id)).collect();
    for cause in causes {
        if cause.0 != span.trace_id() && !linked.contains(&cause) {
            additions.span_link(index, cause.0, cause.1);
            linked.push(cause);
        }
    }
}

/// Adds the node's names, what the configuration says and what the API `told` of the node to resource `index`.
pub(super) fn add_node(
    additions: &mut Additions,
    index: usize,
    resource: &Resource<'_>,
    config: &Enrich,
    told: &[(String, String)],
) {
    let node = config.node_name.as_deref();
    let own = [("k8s.node.name", node), ("host.name", node), ("k8s.cluster.name", config.cluster_name.as_deref())];
    let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let configured = config.resource_attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut added: Vec<&str> = Vec::new();
    let told = told.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in configured.filter(|(key, _)| !key.starts_with("service.")).chain(own).chain(told) {
        if !added.contains(&key) && resource.attribute(key).is_none() {
            additions.resource_str(index, key, value);
            added.push(key);
        }
    }
}
