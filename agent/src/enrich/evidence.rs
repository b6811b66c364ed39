//! What a span itself tells of whose it is: its attributes and the log lines among its events.

use spanlet_otlp::{Span, SpanKind};

use super::logs::{self, Told};
use super::names;
use super::source::{PodName, Source};

/// What the attributes and events of a runtime's span tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence<'a> {
    pub(super) pod: Option<PodName<'a>>,
    /// The sandbox, which is `pod`'s if both are told.
    pub(super) sandbox_id: Option<&'a str>,
    /// The container; some spans put a sandbox's id here.
    pub(super) container_id: Option<&'a str>,
    pub(super) container_name: Option<&'a str>,
    /// Who told: [`Source::Span`] for attributes, [`Source::Event`] for log lines.
    pub(super) source: Source,
    /// A log line says that something of the pod is being made.
    pub(super) creates: bool,
}

/// The pod of a span of kubelet's `syncPod` family.
pub(super) fn of_sync<'a>(span: &Span<'a>) -> Option<PodName<'a>> {
    let mut pod = PodName::default();
    let mut joined = None;
    for (key, value) in span.attributes() {
        let Some(value) = value.as_str() else { continue };
        match key {
            "k8s.pod.uid" => pod.uid = value,
            "k8s.pod.name" => pod.name = value,
            "k8s.namespace.name" => pod.namespace = value,
            "k8s.pod" => joined = value.split_once('/'),
            _ => {}
        }
    }
    if let Some((namespace, name)) = joined.filter(|_| pod.name.is_empty()) {
        (pod.namespace, pod.name) = (namespace, name);
    }
    (!pod.uid.is_empty() && !pod.name.is_empty()).then_some(pod)
}

/// What a span of a runtime tells, if anything.
pub(super) fn of_runtime<'a>(span: &Span<'a>) -> Option<Evidence<'a>> {
    let mut evidence = Evidence::NONE;
    for (key, value) in span.attributes() {
        let Some(value) = value.as_str() else { continue };
        evidence.attribute(key, value);
    }
    for event in span.events() {
        let told = match event.name {
            "message" => continue,
            "log" => {
                let message = event.attributes().find(|(key, _)| *key == "log.message");
                message.and_then(|(_, value)| logs::crio(value.as_str()?))
            }
            line if span.kind() == SpanKind::Server => logs::containerd(line),
            _ => None,
        };
        if let Some(told) = told {
            evidence.line(&told);
        }
    }
    (evidence != Evidence::NONE).then_some(evidence)
}

impl<'a> Evidence<'a> {
    pub(super) const NONE: Self = Self {
        pod: None,
        sandbox_id: None,
        container_id: None,
        container_name: None,
        source: Source::Span,
        creates: false,
    };

    pub(super) fn of_pod(pod: PodName<'a>) -> Self {
        Self { pod: Some(pod), ..Self::NONE }
    }

    /// Attributes of containerd 2.x.
    fn attribute(&mut self, key: &str, value: &'a str) {
        match key {
            "sandbox.id" => self.sandbox_id = Some(value),
            "container.id" | "task.id" | "task.container.id" => self.container_id = Some(value),
            "sandbox.name" => self.pod = names::sandbox_name(value),
            "container.name" => {
                let parts = names::container_name(value);
                self.container_name = parts.map(|(container, _)| container);
                self.pod = parts.map(|(_, pod)| pod);
            }
            _ => {}
        }
    }

    /// A log line tells only what no attribute and no line before did.
    fn line(&mut self, told: &Told<'a>) {
        let has_id = self.sandbox_id.is_some() || self.container_id.is_some();
        if self.pod.is_none() && (told.pod.is_some() || !has_id) {
            self.source = Source::Event;
        }
        self.pod = self.pod.or(told.pod);
        self.sandbox_id = self.sandbox_id.or(told.sandbox_id);
        self.container_id = self.container_id.or(told.container_id);
        self.container_name = self.container_name.or(told.container_name);
        self.creates |= told.creates;
    }
}
