//! Whose the spans of a batch are.
//!
//! Three passes, since a child stands before its parent and a server's span comes before its client's:
//!
//! ```text
//!  learn    every span: what it tells of pods, ids and its trace goes into the store
//!  own      what each span itself says: its call, its attributes and log lines, its shim's name
//!  inherit  from the nearest ancestor that has a pod, else from the trace if that is one pod's
//! ```

mod control_plane;
mod learn;

use std::sync::Arc;

use hashbrown::HashMap;
use spanlet_otlp::{Additions, Span, SpanKind, TraceRequest};

use super::Enricher;
use super::attributes::{self, OwnerAttributes};
use super::evidence::{self, Evidence};
use super::names::{self, Role};
use super::source::Source;
use super::store::{Identity, PodKey};
use crate::batch::Batch;
use crate::call::Call;
use crate::config::ShimService;
use crate::pod::Owner;

/// Who made the spans of a resource.
#[derive(Debug)]
enum Emitter<'a> {
    /// kube-apiserver and its store: their spans are the cluster's, whatever trace they are in.
    ControlPlane,
    /// A containerd 2.x shim, by its sandbox's id: all its spans are that pod's.
    Shim(&'a str),
    Other,
}

/// A span that told something, and the pod that it was understood to mean.
struct Told<'a> {
    span: usize,
    evidence: Evidence<'a>,
    pod: Option<PodKey>,
}

/// Most ancestors walked up: spans of kubelet and runtimes nest some 6 deep, and a loop must end.
const MAX_ANCESTORS: usize = 32;

impl Enricher {
    /// Sets the owners of the batch's spans, adds the pod's attributes to them and the node's to the resources.
    pub fn batch(&mut self, batch: &mut Batch) {
        self.identify(batch);
        self.finish(batch);
    }

    /// Sets the owners of the batch's spans. To be called once, before [`finish`](Self::finish).
    pub fn identify(&mut self, batch: &mut Batch) {
        let Batch { request, calls, owners, .. } = batch;
        let emitters = emitters(request);
        let told = self.learn_from_spans(request, calls, &emitters);
        self.own(request, calls, owners, &told, &emitters);
        self.inherit(request, calls, owners, &emitters);
    }

    /// Sets the owners that have become known since [`identify`](Self::identify).
    pub fn identify_again(&mut self, batch: &mut Batch) {
        let Batch { request, calls, owners, .. } = batch;
        let emitters = emitters(request);
        let unowned = request.spans().enumerate().filter(|(index, _)| owners[*index].is_none());
        let told: Vec<Told<'_>> = unowned
            .filter(|(_, span)| !matches!(emitters[span.resource()], Emitter::ControlPlane))
            .filter_map(|(span, told)| Some(Told { span, evidence: evidence_of(&told)?, pod: None }))
            .collect();
        self.own(request, calls, owners, &told, &emitters);
        self.inherit(request, calls, owners, &emitters);
    }

    /// Whether spans of the batch may get an owner from what is still to come.
    pub fn awaits(&self, batch: &Batch) -> bool {
        let emitters = emitters(&batch.request);
        let mut unowned = batch.request.spans().zip(&batch.owners).filter(|(_, owner)| owner.is_none());
        unowned.any(|(span, _)| match emitters[span.resource()] {
            Emitter::ControlPlane => false,
            Emitter::Shim(_) => true,
            Emitter::Other => !self.store.traces.is_shared(&span.trace_id()) && may_be_a_pods(&span),
        })
    }

    /// Adds the owners' attributes to the spans and the node's to the resources, and counts what leaves without an owner.
    pub fn finish(&mut self, batch: &mut Batch) {
        let Batch { request, additions, owners, .. } = batch;
        let emitters = emitters(request);
        for (index, emitter) in emitters.iter().enumerate() {
            attributes::add_node(additions, index, &request.resource(index), &self.config, &self.node_attributes);
            if matches!(emitter, Emitter::Shim(_)) && self.config.shim_service == ShimService::Collapse {
                attributes::collapse_shim(additions, request, index);
            }
        }
        self.attribute(request, additions, owners, &emitters);
    }

    fn own(
        &mut self,
        request: &TraceRequest,
        calls: &[Option<Arc<Call>>],
        owners: &mut [Option<Owner>],
        told: &[Told<'_>],
        emitters: &[Emitter<'_>],
    ) {
        let mut told = told.iter().peekable();
        for (index, span) in request.spans().enumerate() {
            let told = told.next_if(|told| told.span == index);
            let call = calls[index].as_deref();
            if let Some(owner) = call.and_then(|call| self.call_owner(call)) {
                owners[index] = Some(owner);
                continue;
            }
            let own = told.and_then(|told| {
                let pod = told.pod.map(|pod| Identity { pod, container: None, source: told.evidence.source });
                self.by_id(&told.evidence).or(pod)
            });
            let own = own.or_else(|| match emitters[span.resource()] {
                Emitter::Shim(sandbox) => self.store.find(sandbox),
                _ => None,
            });
            let Some(owner) = own.and_then(|own| self.store.owner(own)) else { continue };
            if call.is_none() && !self.store.traces.is_settled(&span.trace_id()) {
                self.tell_relatives(&span, &owner);
            }
            owners[index] = Some(owner);
        }
    }

    /// The call's owner, with what has become known since the call was over.
    fn call_owner(&mut self, call: &Call) -> Option<Owner> {
        let Some(owner) = &call.owner else {
            return self.call_subject(call).and_then(|identity| self.store.owner(identity));
        };
        let mut owner = owner.clone();
        let is_partial = owner.pod.name.is_empty() || (self.attributes_told && owner.pod.attributes.is_empty());
        if is_partial && let Some(pod) = self.store.by_uid(&owner.pod.uid).and_then(|key| self.store.pod(key)) {
            owner.pod = Arc::clone(pod);
        }
        if let Some(container) = owner.container.as_ref().filter(|container| container.name.is_empty())
            && let Some(known) = self.store.find(&container.id)
        {
            owner.container = known.container;
        }
        Some(owner)
    }

    /// Remembers the owner for spans that come in other requests: the children, and of a server's span the client's.
    fn tell_relatives(&mut self, span: &Span<'_>, owner: &Owner) {
        self.span_owners.put(span.trace_id(), span.span_id(), owner);
        if let Some(client) = span.parent_span_id()
            && span.kind() == SpanKind::Server
            && Role::of(span.name()).is_some()
        {
            self.span_owners.put(span.trace_id(), client, owner);
        }
    }

    fn inherit(
        &mut self,
        request: &TraceRequest,
        calls: &[Option<Arc<Call>>],
        owners: &mut [Option<Owner>],
        emitters: &[Emitter<'_>],
    ) {
        let mut family = Family { request, by_id: None };
        for (index, span) in request.spans().enumerate() {
            if owners[index].is_some() || matches!(emitters[span.resource()], Emitter::ControlPlane) {
                continue;
            }
            // Calls have no owner above them but the trace's; a runtime's inner spans may inherit a container.
            let is_call = span.name().starts_with("runtime.v1.");
            if !is_call {
                owners[index] = self.inherited(&span, owners, &mut family);
            } else if self.store.trace_pod(&span.trace_id()).is_none() {
                owners[index] = self.span_owners.find(span.trace_id(), span.span_id()).map(inherited_from);
            }
            if owners[index].is_none()
                && let Some(identity) = self.trace_identity(&span.trace_id())
            {
                if let Some(call) = &calls[index] {
                    self.adopt(call, &identity);
                }
                owners[index] = self.store.owner(identity);
            }
        }
    }

    /// The owner of the nearest ancestor that has one.
    fn inherited(&self, span: &Span<'_>, owners: &[Option<Owner>], family: &mut Family<'_>) -> Option<Owner> {
        let trace_id = span.trace_id();
        if let Some(owner) = self.span_owners.find(trace_id, span.span_id()) {
            return Some(inherited_from(owner));
        }
        let mut parent_id = span.parent_span_id()?;
        for _ in 0..MAX_ANCESTORS {
            if let Some(owner) = self.span_owners.find(trace_id, parent_id) {
                return Some(inherited_from(owner));
            }
            let parent = family.find(trace_id, parent_id)?;
            if let Some(owner) = &owners[parent] {
                return Some(inherited_from(owner));
            }
            parent_id = family.request.span(parent).parent_span_id()?;
        }
        None
    }

    fn attribute(
        &mut self,
        request: &TraceRequest,
        additions: &mut Additions,
        owners: &[Option<Owner>],
        emitters: &[Emitter<'_>],
    ) {
        let mut of_owner = OwnerAttributes::default();
        for (index, span) in request.spans().enumerate() {
            let Some(owner) = &owners[index] else {
                if !matches!(emitters[span.resource()], Emitter::ControlPlane) {
                    self.store.traces.passed_unowned(span.trace_id());
                }
                continue;
            };
            self.spans_owned += 1;
            of_owner.add(additions, index, &span, owner);
            if span.name() == "syncPod" {
                let asked = self.requests.of_pod(&owner.pod, span.start_unix_nano());
                let cause = self.store.cause(&owner.pod.uid);
                let causes =
                    cause.map(|cause| (cause.trace_id, cause.span_id)).into_iter().chain(asked.iter().copied());
                attributes::add_links(additions, index, &span, causes);
            }
            // kubelet 1.35+ runs a pod's exec probes in the context of its first sync, for as long as the pod lives.
            if span.name() == "runtime.v1.RuntimeService/ExecSync"
                && self.store.traces.is_detached(&span.trace_id(), span.start_unix_nano())
            {
                attributes::mark_detached(additions, index, &span);
            }
        }
    }
}

fn emitters(request: &TraceRequest) -> Vec<Emitter<'_>> {
    let service = |index| request.resource(index).attribute("service.name").and_then(|name| name.as_str());
    (0..request.resource_count()).map(|index| Emitter::of(service(index))).collect()
}

/// Whether a span without an owner can get one: from its trace, from a child that is the same call's, or from what it tells. A
/// root that is the node's cannot.
fn may_be_a_pods(span: &Span<'_>) -> bool {
    let is_a_pods_call = Role::of(span.name()).is_some_and(|role| role != Role::Node);
    span.parent_span_id().is_some() || is_a_pods_call || evidence_of(span).is_some()
}

/// What a runtime's span tells. A call of the node's, a list filtered by id say, is nobody's.
fn evidence_of<'a>(span: &Span<'a>) -> Option<Evidence<'a>> {
    let may_tell = match span.kind() {
        SpanKind::Internal => true,
        SpanKind::Server => Role::of(span.name()) != Some(Role::Node),
        _ => false,
    };
    may_tell.then(|| evidence::of_runtime(span)).flatten()
}

fn inherited_from(owner: &Owner) -> Owner {
    Owner { source: Source::Trace.label(), ..owner.clone() }
}

/// The spans of a request by their id; made when first asked for, since most requests never do.
struct Family<'a> {
    request: &'a TraceRequest,
    by_id: Option<HashMap<[u8; 8], u32>>,
}

impl Family<'_> {
    fn find(&mut self, trace_id: [u8; 16], span_id: [u8; 8]) -> Option<usize> {
        let request = self.request;
        let by_id = self.by_id.get_or_insert_with(|| {
            request.spans().enumerate().map(|(index, span)| (span.span_id(), index as u32)).collect()
        });
        let index = *by_id.get(&span_id)? as usize;
        (request.span(index).trace_id() == trace_id).then_some(index)
    }
}

// === impl Emitter ===

impl<'a> Emitter<'a> {
    fn of(service: Option<&'a str>) -> Self {
        match service {
            Some("apiserver" | "kube-apiserver" | "etcd") => Self::ControlPlane,
            Some(service) => names::shim_sandbox(service).map_or(Self::Other, Self::Shim),
            None => Self::Other,
        }
    }
}
