//! The first pass over a batch: what its spans tell of pods, ids and traces goes into the store.

use std::sync::Arc;

use spanlet_otlp::{Span, SpanKind, TraceRequest};

use super::{Emitter, Family, Told, evidence_of};
use crate::call::Call;
use crate::enrich::Enricher;
use crate::enrich::evidence::{self, Evidence};
use crate::enrich::names::{self, Role};
use crate::enrich::source::{PodName, Source};
use crate::enrich::store::{Identity, PodKey, TraceEvidence};

/// The call whose span tells what the container is called.
const CREATE_CONTAINER: &str = "runtime.v1.RuntimeService/CreateContainer";

impl Enricher {
    pub(super) fn learn_from_spans<'a>(
        &mut self,
        request: &'a TraceRequest,
        calls: &[Option<Arc<Call>>],
        emitters: &[Emitter<'_>],
    ) -> Vec<Told<'a>> {
        let mut all = Vec::new();
        let mut family = Family { request, by_id: None };
        for (index, span) in request.spans().enumerate() {
            if matches!(emitters[span.resource()], Emitter::ControlPlane) {
                self.learn_from_control_plane(&span, &mut family);
                continue;
            }
            let call = calls[index].as_deref();
            match span.kind() {
                SpanKind::Internal => all.extend(self.learn_from_internal(index, &span)),
                SpanKind::Server => all.extend(self.learn_from_server(index, &span, call)),
                _ => {}
            }
        }
        // A container whose sandbox was told by a later span of the request.
        for told in all.iter_mut().filter(|told| told.pod.is_none() && told.evidence.sandbox_id.is_some()) {
            let trace_id = request.span(told.span).trace_id();
            told.pod = self.learn_evidence(trace_id, &told.evidence);
        }
        all
    }

    fn learn_from_internal<'a>(&mut self, index: usize, span: &Span<'a>) -> Option<Told<'a>> {
        match span.name() {
            "syncPod" | "syncTerminatingPod" => self.learn_from_sync(index, span, false),
            "syncTerminatedPod" => self.learn_from_sync(index, span, true),
            "Containers/GarbageCollect" | "Images/GarbageCollect" => {
                self.store.note_trace(span.trace_id(), TraceEvidence::Node);
                None
            }
            _ => {
                let evidence = evidence_of(span)?;
                let pod = self.learn_evidence(span.trace_id(), &evidence);
                if evidence.creates {
                    self.note_call(span, Role::Creates, &evidence, pod);
                }
                Some(Told { span: index, evidence, pod })
            }
        }
    }

    fn learn_from_sync<'a>(&mut self, index: usize, span: &Span<'a>, is_last: bool) -> Option<Told<'a>> {
        let name = evidence::of_sync(span)?;
        let pod = self.store.claim_pod(&name, Source::Span)?;
        let ended_ns = span.end_unix_nano();
        self.store.note_trace(span.trace_id(), TraceEvidence::Root { pod, ended_ns });
        if is_last {
            self.store.pod_gone(pod, ended_ns);
        }
        Some(Told { span: index, evidence: Evidence::of_pod(name), pod: Some(pod) })
    }

    /// A server span of a call that is known adds nothing but a container's name; the wire does not tell that.
    fn learn_from_server<'a>(&mut self, index: usize, span: &Span<'a>, call: Option<&Call>) -> Option<Told<'a>> {
        let has_owner = call.is_some_and(|call| call.owner.is_some());
        if has_owner && span.name() != CREATE_CONTAINER {
            return None;
        }
        let role = Role::of(span.name());
        let evidence = evidence_of(span);
        let pod = evidence.as_ref().and_then(|evidence| self.learn_evidence(span.trace_id(), evidence));
        if let (Some(role), None) = (role, call) {
            self.note_call(span, role, &evidence.unwrap_or(Evidence::NONE), pod);
        }
        evidence.map(|evidence| Told { span: index, evidence, pod })
    }

    /// Notes a call that only its server's span tells of. Spans may be lost or come late, so that the first stop seen need not
    /// be what the trace began with.
    fn note_call(&mut self, span: &Span<'_>, role: Role, evidence: &Evidence<'_>, pod: Option<PodKey>) {
        let pod = pod.map(|pod| (pod, evidence.source));
        let pod = pod.or_else(|| self.by_id(evidence).map(|found| (found.pod, found.source)));
        let pod = pod.filter(|_| role != Role::Node);
        let role = if role == Role::Stops { Role::Concerns } else { role };
        self.store.note_trace(span.trace_id(), TraceEvidence::Call { role, started_ns: span.start_unix_nano(), pod });
    }

    /// Takes what a span tells into the store and returns the pod that it means.
    fn learn_evidence(&mut self, trace_id: [u8; 16], evidence: &Evidence<'_>) -> Option<PodKey> {
        let pod = match &evidence.pod {
            Some(name) => Some(self.claim_named(trace_id, name, evidence)),
            None => evidence.sandbox_id.and_then(|id| self.store.find(id)).map(|sandbox| sandbox.pod),
        }?;
        if let Some(id) = evidence.sandbox_id.filter(|id| names::is_id(id) && evidence.pod.is_some()) {
            self.store.claim_sandbox(id, pod, evidence.source);
        }
        if let Some(id) = evidence.container_id.filter(|id| names::is_id(id) && evidence.sandbox_id != Some(id)) {
            self.store.claim_container(id, evidence.container_name.unwrap_or_default(), pod, evidence.source);
        }
        Some(pod)
    }

    /// The pod of this name. Without a uid only the ids beside it or its trace can tell which pod that is: a pod of the
    /// same name may have been there before.
    fn claim_named(&mut self, trace_id: [u8; 16], name: &PodName<'_>, evidence: &Evidence<'_>) -> PodKey {
        if let Some(pod) = self.store.claim_pod(name, evidence.source) {
            return pod;
        }
        let by_id = self.by_id(evidence).map(|found| found.pod);
        let is_named = |pod: &PodKey| {
            self.store.pod(*pod).is_some_and(|pod| pod.namespace == name.namespace && pod.name == name.name)
        };
        let known = by_id.into_iter().chain(self.store.pod_in_trace(&trace_id)).find(is_named);
        known.unwrap_or_else(|| self.store.claim_nameless(name, evidence.source))
    }

    /// Whose the container or the sandbox is that a span names.
    pub(super) fn by_id(&self, evidence: &Evidence<'_>) -> Option<Identity> {
        let container = evidence.container_id.and_then(|id| self.store.find(id));
        container.or_else(|| evidence.sandbox_id.and_then(|id| self.store.find(id)))
    }
}
