//! What the runtime's answers say of pods.

use std::collections::HashMap;

use spanlet_proto::cri::{Container, ContainerStatus, PodSandbox};

use crate::enrich::{OwnedFact, OwnedPodName};

/// Whose each sandbox is, and of the containers those whose sandbox is listed.
pub(super) fn of_lists(sandboxes: Vec<PodSandbox>, containers: Vec<Container>) -> Vec<OwnedFact> {
    let named = sandboxes.into_iter().filter_map(|sandbox| {
        let metadata = sandbox.metadata?;
        let pod = OwnedPodName { namespace: metadata.namespace, name: metadata.name, uid: metadata.uid };
        Some((sandbox.id, pod))
    });
    let pods: HashMap<String, OwnedPodName> = named.collect();
    let contained = containers.into_iter().filter_map(|container| {
        let pod = pods.get(&container.pod_sandbox_id)?.clone();
        let name = container.metadata.map(|metadata| metadata.name).unwrap_or_default();
        Some(OwnedFact::Container { id: container.id, name, pod })
    });
    let contained: Vec<OwnedFact> = contained.collect();
    let sandboxes = pods.into_iter().map(|(id, pod)| OwnedFact::Sandbox { id, pod });
    sandboxes.chain(contained).collect()
}

/// What a container is called and whose it is, by the labels that kubelet gives it; nothing for one that kubelet did not make.
pub(super) fn of_status(status: ContainerStatus) -> Option<OwnedFact> {
    let mut labels = status.labels;
    let mut label = |name: &str| labels.remove(&format!("io.kubernetes.pod.{name}")).filter(|value| !value.is_empty());
    let pod = OwnedPodName { namespace: label("namespace")?, name: label("name")?, uid: label("uid")? };
    Some(OwnedFact::Container { id: status.id, name: status.metadata?.name, pod })
}

#[cfg(test)]
mod tests {
    use spanlet_proto::cri::{ContainerMetadata, PodSandboxMetadata};

    use super::*;

    fn pod(name: &str) -> OwnedPodName {
        OwnedPodName { namespace: "default".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
    }

    fn sandbox(id: &str, name: &str) -> PodSandbox {
        let OwnedPodName { namespace, name, uid } = pod(name);
        PodSandbox { id: id.to_owned(), metadata: Some(PodSandboxMetadata { name, uid, namespace, attempt: 0 }) }
    }

    fn container(id: &str, pod_sandbox_id: &str) -> Container {
        let metadata = Some(ContainerMetadata { name: "app".to_owned() });
        Container { id: id.to_owned(), pod_sandbox_id: pod_sandbox_id.to_owned(), metadata }
    }

    #[test]
    fn a_container_is_its_sandboxs_pods() {
        let sandboxes = vec![sandbox("s1", "web"), sandbox("s2", "api"), PodSandbox::default()];
        let containers = vec![container("c1", "s1"), container("c2", "s2"), container("c3", "unknown")];
        let facts = of_lists(sandboxes, containers);
        let contained =
            |id: &str, name: &str| OwnedFact::Container { id: id.to_owned(), name: "app".to_owned(), pod: pod(name) };
        assert_eq!(facts.len(), 4, "{facts:?}");
        for (id, name) in [("s1", "web"), ("s2", "api")] {
            assert!(facts[..2].contains(&OwnedFact::Sandbox { id: id.to_owned(), pod: pod(name) }), "{facts:?}");
        }
        assert_eq!(facts[2..], [contained("c1", "web"), contained("c2", "api")]);
    }

    #[test]
    fn a_status_names_the_pod_by_kubelets_labels() {
        let labels = [("name", "web"), ("namespace", "default"), ("uid", "uid-web")];
        let labels: HashMap<String, String> =
            labels.iter().map(|(key, value)| (format!("io.kubernetes.pod.{key}"), (*value).to_owned())).collect();
        let metadata = Some(ContainerMetadata { name: "app".to_owned() });
        let status = ContainerStatus { id: "c1".to_owned(), metadata, labels };
        let fact = OwnedFact::Container { id: "c1".to_owned(), name: "app".to_owned(), pod: pod("web") };
        assert_eq!(of_status(status.clone()), Some(fact));
        let mut unlabelled = status;
        unlabelled.labels.remove("io.kubernetes.pod.uid");
        assert_eq!(of_status(unlabelled), None);
    }
}
