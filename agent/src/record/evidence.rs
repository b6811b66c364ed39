//! What the recorder keeps of a call, a span and an exec: small, owned, and without what no answer needs.

use std::sync::Arc;

use crate::call::{Call, Guess, Naming, Points, SocketKind, Subject, Traceparent};
use crate::exec::Exec;
use crate::pod::Owner;

use super::names::Names;

/// What the allocator adds to a small allocation: its header, and rounding up to 16 bytes.
const ALLOCATION_BYTES: usize = 16;

/// What names a span: its trace id and its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SpanKey {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

/// A call as seen on the wire; replaced once, when it is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CallSeen {
    pub(super) connection: u64,
    pub(super) stream: u32,
    pub(super) kind: SocketKind,
    pub(super) socket_path: Arc<str>,
    pub(super) method: Option<Arc<str>>,
    pub(super) naming: Naming,
    pub(super) guess: Option<Guess>,
    /// `grpc-timeout`.
    pub(super) timeout_ns: Option<u64>,
    pub(super) traceparent: Option<Traceparent>,
    /// gRPC status code.
    pub(super) status: Option<u8>,
    pub(super) finished: bool,
    /// If finished: when. Else `ended_ns` is the last that is known of it.
    pub(super) end_known: bool,
    pub(super) lost_track: bool,
    pub(super) streaming: bool,
    pub(super) started_ns: u64,
    /// Equals `started_ns` until finished.
    pub(super) ended_ns: u64,
    pub(super) points: Points,
    pub(super) sandbox_id: Option<Box<str>>,
    pub(super) container_id: Option<Box<str>>,
    /// `spec.containers[].name`.
    pub(super) container_name: Option<Box<str>>,
    pub(super) image: Option<Box<str>>,
    pub(super) client_pid: Option<u32>,
    pub(super) server_pid: Option<u32>,
}

/// What part a span plays in a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SpanRole {
    /// kubelet's `syncPod`: brings the pod towards running.
    Sync,
    /// kubelet's `syncTerminatingPod`.
    SyncTerminating,
    /// kubelet's `syncTerminatedPod`.
    SyncTerminated,
    /// kubelet's side of a CRI call.
    CriClient,
    /// The runtime's side of a CRI call.
    CriServer,
    /// Everything else: what a runtime does inside a call, what kubelet does inside a sync.
    Inner,
}

/// A span that kubelet or the runtime exported.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SpanSeen {
    pub(super) key: SpanKey,
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: Arc<str>,
    pub(super) role: SpanRole,
    pub(super) started_ns: u64,
    pub(super) ended_ns: u64,
    /// gRPC status code, of CRI spans.
    pub(super) status: Option<u8>,
    /// The span's own status is Error.
    pub(super) error: bool,
    /// `k8s.pod.update_type` of a sync.
    pub(super) update_type: Option<Box<str>>,
    pub(super) container_id: Option<Box<str>>,
    pub(super) container_name: Option<Box<str>>,
    pub(super) image: Option<Box<str>>,
}

/// In no argument and no variable of a process: each ends with it.
pub(super) const BETWEEN_WORDS: &str = "\0";

/// A process that the runtime started.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExecSeen {
    pub(super) pid: u32,
    pub(super) parent_pid: u32,
    pub(super) name: Box<str>,
    /// Arguments, and `CNI_*` variables, with [`BETWEEN_WORDS`] between them: one allocation each.
    pub(super) argv: Box<str>,
    pub(super) cni: Box<str>,
    pub(super) started_ns: u64,
    pub(super) ended_ns: Option<u64>,
    pub(super) exit_status: Option<i32>,
    pub(super) cpu_ns: Option<u64>,
    pub(super) container_id: Option<Box<str>>,
}

// === impl SpanKey ===

impl SpanKey {
    pub(super) const fn of(traceparent: &Traceparent) -> Self {
        Self { trace_id: traceparent.trace_id, span_id: traceparent.span_id }
    }
}

// === impl CallSeen ===

impl CallSeen {
    pub(super) fn new(call: &Call, finished: bool, names: &mut Names) -> Self {
        let method_ends_with = |verb: &str| call.method.as_deref().is_some_and(|method| method.ends_with(verb));
        let mut sandbox_id = None;
        let mut container_id = None;
        let mut image = None;
        match &call.subject {
            Subject::SandboxId(id) => sandbox_id = Some(id.as_str()),
            Subject::ContainerId(id) => container_id = Some(id.as_str()),
            Subject::Image(name) => image = Some(name.as_str()),
            Subject::Unknown
            | Subject::Sandbox { .. }
            | Subject::Volume { .. }
            | Subject::Claims(_)
            | Subject::Device(_) => {}
        }
        if method_ends_with("/RunPodSandbox") {
            sandbox_id = call.response_id.as_deref();
        } else if method_ends_with("/CreateContainer") {
            container_id = call.response_id.as_deref();
        }
        let container = call.owner.as_ref().and_then(|owner| owner.container.as_ref());
        Self {
            connection: call.connection,
            stream: call.stream,
            kind: call.socket.kind,
            socket_path: names.intern(&call.socket.path),
            method: call.method.as_deref().map(|method| names.intern(method)),
            naming: call.naming,
            guess: call.guess,
            timeout_ns: call.timeout_ns,
            traceparent: call.traceparent,
            status: call.status.map(|status| status.code),
            finished,
            end_known: call.is_end_known(),
            lost_track: call.lost_track,
            streaming: call.streaming,
            started_ns: call.started_ns,
            ended_ns: call.ended_ns.max(call.started_ns),
            points: call.points,
            sandbox_id: sandbox_id.map(Into::into),
            container_id: container_id
                .or_else(|| container.map(|container| container.id.as_str()).filter(|id| !id.is_empty()))
                .map(Into::into),
            container_name: container_name(call.owner.as_ref()),
            image: image.map(Into::into),
            client_pid: call.client.pid,
            server_pid: call.server.pid,
        }
    }

    /// The span that kubelet has for this call, by the header that it wrote.
    pub(super) fn span(&self) -> Option<SpanKey> {
        self.traceparent.as_ref().map(SpanKey::of)
    }

    pub(super) fn is_same_call(&self, other: &Self) -> bool {
        self.connection == other.connection
            && self.stream == other.stream
            // The numbers of closed connections come back some day; a later call on them is another one.
            && !(self.finished && self.ended_ns < other.started_ns)
            && !(other.finished && other.ended_ns < self.started_ns)
    }

    /// Takes in what `newer` says of the same call. The end of a call stands, whichever event came first.
    pub(super) fn update(&mut self, newer: Self) {
        if self.finished && !newer.finished {
            let finished = std::mem::replace(self, newer);
            return self.update(finished);
        }
        let earlier = std::mem::replace(self, newer);
        self.method = self.method.take().or(earlier.method);
        self.traceparent = self.traceparent.or(earlier.traceparent);
        self.sandbox_id = self.sandbox_id.take().or(earlier.sandbox_id);
        self.container_id = self.container_id.take().or(earlier.container_id);
        self.container_name = self.container_name.take().or(earlier.container_name);
        self.image = self.image.take().or(earlier.image);
    }

    /// Bytes outside of the struct. Names are shared and counted where they are kept.
    pub(super) fn heap_bytes(&self) -> usize {
        text(&self.sandbox_id) + text(&self.container_id) + text(&self.container_name) + text(&self.image)
    }
}

// === impl SpanSeen ===

impl SpanSeen {
    /// The span this one is a child of.
    pub(super) fn parent_key(&self) -> Option<SpanKey> {
        self.parent.map(|span_id| SpanKey { trace_id: self.key.trace_id, span_id })
    }

    pub(super) fn is_sync(&self) -> bool {
        matches!(self.role, SpanRole::Sync | SpanRole::SyncTerminating | SpanRole::SyncTerminated)
    }

    /// Bytes outside of the struct. Names are shared and counted where they are kept.
    pub(super) fn heap_bytes(&self) -> usize {
        text(&self.update_type) + text(&self.container_id) + text(&self.container_name) + text(&self.image)
    }
}

// === impl ExecSeen ===

impl ExecSeen {
    pub(super) fn new(exec: &Exec) -> Self {
        let container = exec.owner.as_ref().and_then(|owner| owner.container.as_ref());
        Self {
            pid: exec.pid,
            parent_pid: exec.parent_pid,
            name: exec.name().into(),
            argv: exec.argv.join(BETWEEN_WORDS).into(),
            cni: exec.cni.join(BETWEEN_WORDS).into(),
            started_ns: exec.started_ns,
            ended_ns: exec.ended_ns,
            exit_status: exec.exit_status,
            cpu_ns: exec.cpu_ns,
            container_id: container.map(|container| container.id.as_str()).filter(|id| !id.is_empty()).map(Into::into),
        }
    }

    /// Ids are used again; the start tells processes apart. One that executes another program stays the same.
    pub(super) fn is_same_exec(&self, other: &Self) -> bool {
        self.pid == other.pid && self.started_ns == other.started_ns
    }

    pub(super) fn update(&mut self, newer: Self) {
        if newer.ended_ns.is_some() || self.ended_ns.is_none() {
            *self = newer;
        }
    }

    /// Bytes outside of the struct.
    pub(super) fn heap_bytes(&self) -> usize {
        let texts = [&self.name, &self.argv, &self.cni];
        texts.map(|text| text.len() + ALLOCATION_BYTES).iter().sum::<usize>() + text(&self.container_id)
    }
}

pub(super) fn container_name(owner: Option<&Owner>) -> Option<Box<str>> {
    let name = &owner?.container.as_ref()?.name;
    (!name.is_empty()).then(|| name.as_str().into())
}

fn text(value: &Option<Box<str>>) -> usize {
    value.as_deref().map_or(0, |text| text.len() + ALLOCATION_BYTES)
}
