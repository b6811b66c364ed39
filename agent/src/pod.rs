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
