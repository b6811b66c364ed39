//! Whose a process of the runtime is: from the ids in its arguments, and of CNI plugins from their `CNI_*` variables.

use super::Enricher;
use super::names::{container_name, is_id};
use super::source::{PodName, Source};
use super::store::Identity;
use crate::exec::Exec;

impl Enricher {
    /// Sets the process's owner and learns from its environment.
    pub fn exec(&mut self, exec: &mut Exec) {
        let identity = self.cni(&exec.cni).or_else(|| self.arguments(&exec.argv));
        exec.owner = identity.and_then(|identity| self.store.owner(identity));
    }

    /// A CNI plugin knows its sandbox's id before kubelet does: RunPodSandbox answers when the network is up.
    fn cni(&mut self, variables: &[String]) -> Option<Identity> {
        let value = |name: &str| variables.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        let pod = self.store.claim_pod(&cni_pod(value("CNI_ARGS").unwrap_or_default()), Source::Runtime);
        let sandbox = value("CNI_CONTAINERID").filter(|id| is_id(id))?;
        if let Some(pod) = pod {
            self.store.claim_sandbox(sandbox, pod, Source::Runtime);
        }
        self.store.find(sandbox)
    }

    fn arguments(&mut self, argv: &[String]) -> Option<Identity> {
        let id = argv.iter().find(|argument| is_id(argument))?;
        // conmon's `-n k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`; the sandbox's own container is called POD.
        let named = argv.iter().find_map(|argument| container_name(argument.strip_prefix("k8s_")?));
        if let Some((container, name)) = named
            && let Some(pod) = self.store.claim_pod(&name, Source::Runtime)
        {
            match container {
                "POD" => self.store.claim_sandbox(id, pod, Source::Runtime),
                _ => self.store.claim_container(id, container, pod, Source::Runtime),
            }
        }
        self.store.find(id)
    }
}

/// The pod in `K8S_POD_NAMESPACE=…;K8S_POD_NAME=…;K8S_POD_UID=…;…`, in any order.
fn cni_pod(arguments: &str) -> PodName<'_> {
    let mut pod = PodName::default();
    for (key, value) in arguments.split(';').filter_map(|argument| argument.split_once('=')) {
        match key {
            "K8S_POD_NAMESPACE" => pod.namespace = value,
            "K8S_POD_NAME" => pod.name = value,
            "K8S_POD_UID" => pod.uid = value,
            _ => {}
        }
    }
    pod
}
