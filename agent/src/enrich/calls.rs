//! Whose a call is: from what its request and response say, else from its trace.

use super::Enricher;
use super::names::Role;
use super::source::{PodName, Source};
use super::store::{Identity, TraceEvidence};
use crate::call::{Call, CallEvent, SocketKind, Subject};

const REMOVE_CONTAINER: &str = "runtime.v1.RuntimeService/RemoveContainer";

impl Enricher {
    /// Sets the call's owner and learns from the call. To be called before the call goes to any other stage.
    pub fn call(&mut self, event: &mut CallEvent) {
        let (call, is_finished) = match event {
            CallEvent::Started(call) => (call, false),
            CallEvent::Finished(call) => (call, true),
        };
        let identity = match call.socket.kind {
            SocketKind::Cri => self.cri_call(call, is_finished),
            SocketKind::Csi | SocketKind::Dra | SocketKind::DevicePlugin => self.plugin_call(call, is_finished),
            SocketKind::Registration | SocketKind::PodResources => None,
        };
        call.owner = identity.and_then(|identity| self.store.owner(identity));
        if is_finished && call.socket.kind == SocketKind::Cri && call.response_id.is_some() {
            self.settle_execs();
        }
    }

    fn cri_call(&mut self, call: &Call, is_finished: bool) -> Option<Identity> {
        let role = role_of(call);
        let own = self.call_subject(call);
        if let Some(traceparent) = call.traceparent {
            let pod = own.as_ref().map(|own| (own.pod, own.source));
            let evidence = TraceEvidence::Call { role, started_ns: call.started_ns, pod };
            self.store.note_trace(traceparent.trace_id, evidence);
        }
        if is_finished && call.status.is_some_and(|status| status.code == 0) {
            match (call.method.as_deref(), &call.subject) {
                (Some("runtime.v1.RuntimeService/RemovePodSandbox"), Subject::SandboxId(id))
                | (Some(REMOVE_CONTAINER), Subject::ContainerId(id)) => {
                    self.store.removed(id, call.ended_ns);
                }
                _ => {}
            }
        }
        self.ask_name(call, is_finished);
        own.or_else(|| {
            let identity = self.trace_identity(&call.traceparent?.trace_id)?;
            self.adopt(call, &identity);
            Some(identity)
        })
    }

    /// Asks for a container that nothing has named: at once, so that its first spans carry the name. One that is being
    /// removed cannot be asked for any more.
    fn ask_name(&mut self, call: &Call, is_finished: bool) {
        let id = match (&call.subject, &call.response_id) {
            (Subject::SandboxId(_), Some(created)) if is_finished => created,
            (Subject::ContainerId(id), _) if call.method.as_deref() != Some(REMOVE_CONTAINER) => id,
            _ => return,
        };
        let known = self.store.find(id).and_then(|identity| identity.container);
        if known.is_none_or(|container| container.name.is_empty()) {
            self.questions.container(id);
        }
    }

    /// Whose the sandbox or container is that the call names; learns the id that the response tells. A call of the node's,
    /// a list filtered by id say, is nobody's.
    pub(super) fn call_subject(&mut self, call: &Call) -> Option<Identity> {
        if role_of(call) == Role::Node {
            return None;
        }
        match &call.subject {
            Subject::Sandbox { name, uid, namespace, .. } => {
                let pod = self.claim_pod(&PodName { namespace, name, uid }, Source::Wire)?;
                if let Some(id) = &call.response_id {
                    self.store.claim_sandbox(id, pod, Source::Wire);
                }
                Some(Identity { pod, container: None, source: Source::Wire })
            }
            Subject::SandboxId(id) => {
                let sandbox = self.store.find(id)?;
                let Some(container) = &call.response_id else { return Some(sandbox) };
                self.store.claim_container(container, "", sandbox.pod, sandbox.source);
                self.store.find(container)
            }
            Subject::ContainerId(id) => self.store.find(id),
            _ => None,
        }
    }

    /// Learns the ids of a call whose trace is a pod's, where nothing told them before: the call's containers were made
    /// before the agent came.
    pub(super) fn adopt(&mut self, call: &Call, identity: &Identity) {
        if role_of(call) == Role::Node {
            return;
        }
        match &call.subject {
            Subject::SandboxId(id) => {
                self.store.claim_sandbox(id, identity.pod, Source::Trace);
                if let Some(container) = &call.response_id {
                    self.store.claim_container(container, "", identity.pod, Source::Trace);
                }
            }
            Subject::ContainerId(id) => self.store.claim_container(id, "", identity.pod, Source::Trace),
            _ => {}
        }
    }

    pub(super) fn trace_identity(&self, trace_id: &[u8; 16]) -> Option<Identity> {
        let pod = self.store.trace_pod(trace_id)?;
        Some(Identity { pod, container: None, source: Source::Trace })
    }
}

/// The role of a CRI call. One whose method is not known yet is judged by what only certain methods carry; what remains
/// is taken for the node's, which claims nothing.
fn role_of(call: &Call) -> Role {
    match (&call.method, &call.subject) {
        (Some(method), _) => Role::of(method).unwrap_or(Role::Node),
        (None, Subject::Sandbox { .. }) => Role::Creates,
        (None, Subject::SandboxId(_)) if call.response_id.is_some() => Role::Creates,
        (None, Subject::SandboxId(_) | Subject::ContainerId(_)) => Role::Concerns,
        (None, _) => Role::Node,
    }
}
