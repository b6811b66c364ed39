//! Whose a process of the runtime is: from the ids in its arguments, and of CNI plugins from their `CNI_*` variables; else its
//! parent's.
//!
//! A shim may be started before anything tells whose the sandbox in its arguments is: a pod in the node's network has no CNI
//! plugins, and RunPodSandbox tells the id in its answer. Such processes wait for it.

use std::collections::{HashMap, VecDeque};

use super::Enricher;
use super::names::{container_name, is_id};
use super::source::{PodName, Source};
use super::store::Identity;
use crate::exec::Exec;

/// Most processes that wait: a few for each sandbox that is being made.
const MAX_WAITING: usize = 256;

/// Most running processes whose owner is remembered: a shim or monitor for each container of a full node, several times over.
const MAX_RUNNING: usize = 4096;

/// Processes whose owner their children need, or that need one.
#[derive(Debug, Default)]
pub(super) struct Execs {
    /// Whose those are that run, by process id.
    running: HashMap<u32, Identity>,
    /// Process ids that were put into `running`, the oldest first; some have gone since.
    order: VecDeque<u32>,
    waiting: VecDeque<Exec>,
    /// Those whose owner became known after they had passed.
    late: Vec<Exec>,
    dropped: u64,
}

impl Enricher {
    /// Sets the process's owner and learns from its environment.
    pub fn exec(&mut self, exec: &mut Exec) {
        let told = self.cni(&exec.cni);
        let is_news = told.is_some();
        let identity = told.or_else(|| self.arguments(&exec.argv)).or_else(|| self.execs.of_parent(exec));
        self.set_owner(exec, identity);
        if exec.owner.is_none() {
            self.execs.wait(exec);
        }
        if is_news {
            self.settle_execs();
        }
    }

    /// Processes that came without an owner and have one now; each is told once.
    pub fn take_late_execs(&mut self) -> Vec<Exec> {
        std::mem::take(&mut self.execs.late)
    }

    /// To be called when the owner of a sandbox or container became known.
    pub(super) fn settle_execs(&mut self) {
        // Children follow their parents in the queue, which by then may be over.
        let mut settled = HashMap::new();
        for mut exec in std::mem::take(&mut self.execs.waiting) {
            let identity = self.arguments(&exec.argv).or_else(|| settled.get(&exec.parent_pid).cloned());
            if let Some(identity) = &identity {
                settled.insert(exec.pid, identity.clone());
            }
            self.set_owner(&mut exec, identity);
            match exec.owner {
                Some(_) => self.execs.late.push(exec),
                None => self.execs.waiting.push_back(exec),
            }
        }
    }

    fn set_owner(&mut self, exec: &mut Exec, identity: Option<Identity>) {
        self.execs.note(exec, identity.as_ref());
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
        let id = argv.iter().find(|argument| is_id(argument));
        // conmon's `-n k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`; the sandbox's own container is called POD.
        let named = argv.iter().find_map(|argument| container_name(argument.strip_prefix("k8s_")?));
        if let (Some(id), Some((container, name))) = (id, named)
            && let Some(pod) = self.store.claim_pod(&name, Source::Runtime)
        {
            match container {
                "POD" => self.store.claim_sandbox(id, pod, Source::Runtime),
                _ => self.store.claim_container(id, container, pod, Source::Runtime),
            }
        }
        ids(argv).find_map(|id| self.store.find(id))
    }
}

/// The ids in arguments: whole ones, and parts of paths. `runc create` has its container's as the last argument, behind paths that
/// hold it too and are so long that the end may be cut.
fn ids(argv: &[String]) -> impl Iterator<Item = &str> {
    argv.iter().flat_map(|argument| argument.split(['/', '='])).filter(|part| is_id(part))
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

// === impl Execs ===

impl Execs {
    /// Processes given up because too many waited or ran.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn of_parent(&self, exec: &Exec) -> Option<Identity> {
        self.running.get(&exec.parent_pid).cloned()
    }

    /// Remembers whose a running process is, in place of an earlier one with its id.
    fn note(&mut self, exec: &Exec, identity: Option<&Identity>) {
        match identity {
            Some(identity) if exec.ended_ns.is_none() => {
                if self.running.insert(exec.pid, identity.clone()).is_none() {
                    self.order.push_back(exec.pid);
                }
            }
            _ => drop(self.running.remove(&exec.pid)),
        }
        while self.running.len() > MAX_RUNNING
            && let Some(oldest) = self.order.pop_front()
        {
            self.dropped += u64::from(self.running.remove(&oldest).is_some());
        }
        if self.order.len() > 2 * MAX_RUNNING {
            self.order.retain(|pid| self.running.contains_key(pid));
        }
    }

    /// Keeps a process that may turn out to be a pod's: it names an id, or its parent waits.
    fn wait(&mut self, exec: &Exec) {
        let is_same = |known: &&mut Exec| known.pid == exec.pid && known.started_ns == exec.started_ns;
        if let Some(known) = self.waiting.iter_mut().find(is_same) {
            known.clone_from(exec);
            return;
        }
        if ids(&exec.argv).next().is_none() && !self.waiting.iter().any(|known| known.pid == exec.parent_pid) {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(exec.clone());
    }
}
