//! The pod that a span, a call or an exec belongs to.

use std::sync::Arc;

/// What is known of one pod. Immutable: a source that learns more makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// `metadata.uid`; empty while no source has told it (CRI-O's log texts name pods without their uid).
    pub uid: String,
    /// Further attributes to put on the pod's spans, by their OpenTelemetry names: workload, labels, QoS class.
    pub attributes: Vec<(String, String)>,
}

/// A container of a pod, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Container {
    /// The runtime's id, 64 hexadecimal digits; empty while not created.
    pub id: String,
    /// `spec.containers[].name`; empty while unknown.
    pub name: String,
}

/// Who a span, a call or an exec belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub pod: Arc<Pod>,
    pub container: Option<Arc<Container>>,
    /// Which source told, the most trusted first: `wire`, `span`, `runtime`, `api`, `event`, `path`, `claim`, `volume`, `device`, `trace`.
    pub source: &'static str,
}

// === impl Owner ===

impl Owner {
    /// What spans are told of their owner: its names and ids, as far as known, then what else is known of the pod.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let (pod, container) = (&self.pod, self.container.as_deref());
        let names = [
            ("k8s.pod.name", pod.name.as_str()),
            ("k8s.pod.uid", pod.uid.as_str()),
            ("k8s.namespace.name", pod.namespace.as_str()),
            ("k8s.container.name", container.map_or("", |container| container.name.as_str())),
            ("container.id", container.map_or("", |container| container.id.as_str())),
        ];
        let further = pod.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        names.into_iter().chain(further).filter(|(_, value)| !value.is_empty())
    }
}
