//! What a pod of the API tells.

use super::attributes::Attributes;
use super::object::Pod;
use super::workload::{self, Above, Controller};
use crate::call::Traceparent;
use crate::config;
use crate::enrich::{OwnedFact, OwnedPodName};

/// On the API's copy of a static pod: the uid that kubelet and the runtime know the pod by.
const MIRRORED_UID: &str = "kubernetes.io/config.mirror";

/// The span that asked for the pod (KEP-5915): a `traceparent` as of W3C Trace Context.
const TRACEPARENT: &str = "tracing.k8s.io/traceparent";

/// The facts of one pod, and what the limits on its attributes cost.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) facts: Vec<OwnedFact>,
    pub(super) dropped: u64,
    pub(super) cut: u64,
}

/// The uid that the pod has on the node; `None` if the object is none of a pod.
pub(super) fn uid(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref();
    let mirrored = annotations.and_then(|annotations| annotations.get(MIRRORED_UID));
    mirrored.or(pod.metadata.uid.as_ref()).map(String::as_str).filter(|uid| !uid.is_empty())
}

/// Everything that the pod tells.
pub(super) fn of_pod(
    pod: &Pod,
    uid: &str,
    config: &config::Enrich,
    controller: Option<(&Controller, Above<'_>)>,
) -> Told {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name =
        OwnedPodName { namespace: text(&pod.metadata.namespace), name: text(&pod.metadata.name), uid: uid.to_owned() };
    let mut facts = vec![OwnedFact::Pod(name.clone())];
    let status = &pod.status;
    let statuses = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    for container in statuses.into_iter().flatten() {
        // `containerd://<id>`, `cri-o://<id>`, `docker://<id>`
        if let Some((_, id)) = container.container_id.split_once("://").filter(|(_, id)| !id.is_empty()) {
            let (id, name_in_pod) = (id.to_owned(), container.name.clone());
            facts.push(OwnedFact::Container { id, name: name_in_pod, pod: name.clone() });
        }
    }
    let annotations = pod.metadata.annotations.as_ref();
    let cause = annotations.and_then(|annotations| Traceparent::parse(annotations.get(TRACEPARENT)?.as_bytes()));
    if let Some(span) = cause {
        facts.push(OwnedFact::Cause { pod_uid: uid.to_owned(), span });
    }
    let attributes = attributes(pod, config, controller);
    let (dropped, cut) = (attributes.dropped, attributes.cut);
    facts.push(OwnedFact::Attributes { pod_uid: uid.to_owned(), attributes: attributes.into_pairs() });
    Told { facts, dropped, cut }
}

/// What is asked for least comes last, where the limits cut off.
fn attributes(pod: &Pod, config: &config::Enrich, controller: Option<(&Controller, Above<'_>)>) -> Attributes {
    let mut attributes = Attributes::default();
    if let Some((controller, above)) = controller {
        workload::add(pod, controller, above, &mut attributes);
    }
    attributes.add("k8s.pod.status.phase", &pod.status.phase);
    // Not in the semantic conventions; the Collector's k8s_cluster receiver calls it so.
    attributes.add("k8s.pod.qos_class", &pod.status.qos_class);
    attributes.add_chosen("k8s.pod.label.", &config.labels, pod.metadata.labels.as_ref());
    attributes.add_chosen("k8s.pod.annotation.", &config.annotations, pod.metadata.annotations.as_ref());
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(metadata: &serde_json::Value, status: &serde_json::Value) -> Pod {
        serde_json::from_str(&serde_json::json!({"metadata": metadata, "status": status}).to_string()).unwrap()
    }

    fn told(metadata: &serde_json::Value, status: &serde_json::Value, config: &config::Enrich) -> Told {
        let pod = pod(metadata, status);
        of_pod(&pod, uid(&pod).unwrap(), config, None)
    }

    fn name() -> OwnedPodName {
        OwnedPodName { namespace: "default".to_owned(), name: "web".to_owned(), uid: "u".to_owned() }
    }

    #[test]
    fn containers_of_every_kind_and_runtime() {
        let metadata = serde_json::json!({"name": "web", "namespace": "default", "uid": "u"});
        let status = serde_json::json!({
            "initContainerStatuses": [{"name": "init", "containerID": "containerd://a"}],
            "containerStatuses": [{"name": "app", "containerID": "cri-o://b"}, {"name": "new", "containerID": ""}, {"name": "bare"}],
            "ephemeralContainerStatuses": [{"name": "debug", "containerID": "docker://c"}],
        });
        let container = |id: &str, container: &str| OwnedFact::Container {
            id: id.to_owned(),
            name: container.to_owned(),
            pod: name(),
        };
        let told = told(&metadata, &status, &config::Enrich::default());
        let attributes = OwnedFact::Attributes { pod_uid: "u".to_owned(), attributes: Vec::new() };
        let expected = [
            OwnedFact::Pod(name()),
            container("a", "init"),
            container("b", "app"),
            container("c", "debug"),
            attributes,
        ];
        assert_eq!(told.facts, expected);
    }

    #[test]
    fn status_labels_and_annotations_by_configuration() {
        let metadata = serde_json::json!({
            "name": "web", "namespace": "default", "uid": "u",
            "labels": {"app": "shop", "team/a": "1", "team/b": "2", "secret": "x"},
            "annotations": {"note": "n".repeat(300), "other": "o"},
        });
        let config = config::Enrich {
            labels: vec!["app".to_owned(), "team/*".to_owned()],
            annotations: vec!["note".to_owned()],
            ..config::Enrich::default()
        };
        let told = told(&metadata, &serde_json::json!({"phase": "Running", "qosClass": "Guaranteed"}), &config);
        let Some(OwnedFact::Attributes { attributes, .. }) = told.facts.last() else { panic!("{told:?}") };
        let pairs: Vec<(&str, &str)> = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let note = "n".repeat(256);
        let expected = [
            ("k8s.pod.status.phase", "Running"),
            ("k8s.pod.qos_class", "Guaranteed"),
            ("k8s.pod.label.app", "shop"),
            ("k8s.pod.label.team/a", "1"),
            ("k8s.pod.label.team/b", "2"),
            ("k8s.pod.annotation.note", note.as_str()),
        ];
        assert_eq!(pairs, expected);
        assert_eq!((told.dropped, told.cut), (0, 1));
    }

    #[test]
    fn a_static_pod_is_known_by_the_uid_that_kubelet_gave_it() {
        let metadata = serde_json::json!({"name": "etcd", "uid": "api", "annotations": {MIRRORED_UID: "file"}});
        assert_eq!(uid(&pod(&metadata, &serde_json::json!({}))), Some("file"));
        assert_eq!(uid(&pod(&serde_json::json!({"name": "etcd"}), &serde_json::json!({}))), None);
    }

    #[test]
    fn the_cause_is_told_if_it_is_a_traceparent() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (value, expected) in [(traceparent, true), ("00-0-0-01", false), ("", false)] {
            let metadata = serde_json::json!({"name": "web", "uid": "u", "annotations": {TRACEPARENT: value}});
            let told = told(&metadata, &serde_json::json!({}), &config::Enrich::default());
            let cause = told.facts.iter().find_map(|fact| match fact {
                OwnedFact::Cause { span, .. } => Some(span.span_id),
                _ => None,
            });
            assert_eq!(cause, expected.then_some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]), "{value}");
        }
    }
}
