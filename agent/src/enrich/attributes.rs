//! What owned spans and all resources are told. An attribute that is there already stays as it is.

use spanlet_otlp::{Additions, Resource, Span, TraceRequest};

use crate::config::Enrich;
use crate::pod::Owner;

/// Adds the owner's names and ids to span `index`.
pub(super) fn add_owner(additions: &mut Additions, index: usize, span: &Span<'_>, owner: &Owner) {
    let (pod, container) = (&owner.pod, owner.container.as_deref());
    let values = [
        ("k8s.pod.name", pod.name.as_str()),
        ("k8s.pod.uid", pod.uid.as_str()),
        ("k8s.namespace.name", pod.namespace.as_str()),
        ("k8s.container.name", container.map_or("", |container| container.name.as_str())),
        ("container.id", container.map_or("", |container| container.id.as_str())),
    ];
    let mut wanted = [true; 5];
    for (key, _) in span.attributes() {
        if key.starts_with("k8s.") || key.starts_with("container.") {
            values.iter().zip(&mut wanted).for_each(|((ours, _), wanted)| *wanted &= *ours != key);
        }
    }
    for ((key, value), _) in values.iter().zip(wanted).filter(|((_, value), wanted)| *wanted && !value.is_empty()) {
        additions.span_str(index, key, value);
    }
    for (key, value) in &pod.attributes {
        if span.attribute(key).is_none() {
            additions.span_str(index, key, value);
        }
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

/// Adds the node's names, and what the configuration says, to resource `index`.
pub(super) fn add_node(additions: &mut Additions, index: usize, resource: &Resource<'_>, config: &Enrich) {
    let node = config.node_name.as_deref();
    let own = [("k8s.node.name", node), ("host.name", node), ("k8s.cluster.name", config.cluster_name.as_deref())];
    let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let configured = config.resource_attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut added: Vec<&str> = Vec::new();
    for (key, value) in configured.filter(|(key, _)| !key.starts_with("service.")).chain(own) {
        if !added.contains(&key) && resource.attribute(key).is_none() {
            additions.resource_str(index, key, value);
            added.push(key);
        }
    }
}
