//! What kubelet's list says about what was asked.

use spanlet_proto::pod_resources::{ContainerResources, PodResources};

use crate::enrich::{OwnedFact, OwnedPodName, Question};

/// The facts that answer questions; what is answered is wanted no longer. A device id that two pods have (ids are one
/// plugin's, and the plugin is not told) and a claim that pods share say nothing.
pub(super) fn told(wanted: &mut Vec<Question>, pods: &[PodResources]) -> Vec<OwnedFact> {
    let mut facts = Vec::new();
    wanted.retain(|question| {
        let mut having = pods.iter().filter(|pod| pod.containers.iter().any(|container| has(container, question)));
        let (Some(pod), None) = (having.next(), having.next()) else { return true };
        facts.extend(fact(question, pod));
        false
    });
    facts
}

fn has(container: &ContainerResources, question: &Question) -> bool {
    match question {
        Question::Device { id } => container.devices.iter().any(|devices| devices.device_ids.contains(id)),
        Question::Claim { namespace, name } => container
            .dynamic_resources
            .iter()
            .any(|claim| claim.claim_namespace == *namespace && claim.claim_name == *name),
        Question::Container { .. } => false,
    }
}

fn fact(question: &Question, pod: &PodResources) -> Option<OwnedFact> {
    let pod = OwnedPodName { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: String::new() };
    match question.clone() {
        Question::Device { id } => Some(OwnedFact::Device { id, pod }),
        Question::Claim { namespace, name } => Some(OwnedFact::ClaimName { namespace, name, pod }),
        Question::Container { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use spanlet_proto::pod_resources::{ContainerDevices, DynamicResource};

    use super::*;

    fn pod(name: &str, devices: &[&str], claims: &[&str]) -> PodResources {
        let device_ids = devices.iter().map(|&id| id.to_owned()).collect();
        let claim = |&name: &&str| DynamicResource { claim_name: name.to_owned(), claim_namespace: "ml".to_owned() };
        let container = ContainerResources {
            name: "app".to_owned(),
            devices: vec![ContainerDevices { resource_name: "vendor.com/gpu".to_owned(), device_ids }],
            dynamic_resources: claims.iter().map(claim).collect(),
        };
        PodResources { name: name.to_owned(), namespace: "ml".to_owned(), containers: vec![container] }
    }

    fn device(id: &str) -> Question {
        Question::Device { id: id.to_owned() }
    }

    fn claim(namespace: &str, name: &str) -> Question {
        Question::Claim { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn what_one_pod_has_is_told_and_wanted_no_longer() {
        let pods = [
            pod("train", &["gpu-0", "gpu-1"], &["claim-a"]),
            pod("serve", &["gpu-2", "0"], &[]),
            pod("x", &["0"], &[]),
        ];
        let mut wanted =
            vec![device("gpu-1"), device("gpu-9"), device("0"), claim("ml", "claim-a"), claim("other", "claim-a")];
        let train = || OwnedPodName { namespace: "ml".to_owned(), name: "train".to_owned(), uid: String::new() };
        let expected = [
            OwnedFact::Device { id: "gpu-1".to_owned(), pod: train() },
            OwnedFact::ClaimName { namespace: "ml".to_owned(), name: "claim-a".to_owned(), pod: train() },
        ];
        assert_eq!(told(&mut wanted, &pods), expected);
        assert_eq!(wanted, [device("gpu-9"), device("0"), claim("other", "claim-a")]);
    }
}
