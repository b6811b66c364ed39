//! Decides from the evidence where a pod's start begins, where it is over, and how it stands.
//!
//! ```text
//!           first evidence                                  last StartContainer of the first set
//!                │                                                     │
//!                ▼                                                     ▼
//!   ─────────────┬──────────┬──────────┬────────────┬──────────┬───────┬─── restarts, debug containers,
//!                │ sandbox  │ init     │ init runs  │ app      │ app   │    termination: not the start
//!                └──────────┴──────────┴────────────┴──────────┴───────┘
//!
//!   Starting ──a container started, none runs or waits──► Started ──StopPodSandbox, syncTerminatingPod──► Terminating ──► Gone
//!      ▲  └────last step failed──► Failed ──┐                │
//!      └────────────────retried─────────────┴────────────────┘ a container of another name is made
//! ```
//!
//! **The first set.** The wire does not say which containers a pod has, so the set is read from what kubelet does.
//! All that is created before any container has started belongs to it, retries included. After that, it is over as soon as
//!
//! * a container of a name that has already started is created or started again (a restart), or
//! * a sandbox is run anew, or the pod is being stopped, or
//! * a container of another name is created more than [`INIT_QUIET_NS`] after the pod's last step ended, or one of
//!   unknown name more than [`UNNAMED_QUIET_NS`].
//!
//! Init containers need no rule of their own: they have names of their own, and the containers after them follow when they are done.

use std::collections::HashMap;

use crate::api::PodState;

use super::cover::Interval;
use super::evidence::{SpanRole, SpanSeen};
use super::pod_calls::PodCall;
use super::step::Step;

/// How long an init container may run before what is created next no longer counts as the start. A debug container
/// that is added later than that is told from it; one added sooner is not.
pub(super) const INIT_QUIET_NS: u64 = 10 * 60 * 1_000_000_000;

/// As above, while no name is known. kubelet's first back-off after a crash is 10 s, so all restarts but the
/// immediate first one fall outside.
pub(super) const UNNAMED_QUIET_NS: u64 = 10_000_000_000;

/// A pod's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) begin_ns: u64,
    /// `now` while the pod is starting.
    pub(super) end_ns: u64,
    pub(super) state: PodState,
}

impl Start {
    pub(super) const fn interval(&self) -> Interval {
        Interval::new(self.begin_ns, self.end_ns)
    }
}

/// `calls` in order of their start. `None` if nothing was done to start the pod.
pub(super) fn find(calls: &[PodCall<'_>], spans: &[SpanSeen], now_ns: u64) -> Option<Start> {
    let stopped_ns = stopped_ns(calls, spans);
    let set = FirstSet::collect(calls, stopped_ns);
    let begin_ns = begin_ns(calls, spans)?;
    let last_start_ns = set.last_start_ns;
    let settled = match set.last_step {
        Some(step) if step.failed() => PodState::Failed,
        Some(_) if last_start_ns.is_some() && !set.unfinished => PodState::Started,
        _ => PodState::Starting,
    };
    let state = match stopped_ns {
        Some(stopped_ns) if is_gone(calls, spans, stopped_ns) => PodState::Gone,
        Some(_) => PodState::Terminating,
        None => settled,
    };
    let end_ns = match (settled, state) {
        (PodState::Started, _) => last_start_ns,
        (PodState::Starting, PodState::Starting) => Some(now_ns),
        // Given up: it took until its last step was over.
        _ => set.last_step.and_then(PodCall::ended_ns).or(stopped_ns),
    };
    Some(Start { begin_ns, end_ns: end_ns.unwrap_or(now_ns).max(begin_ns), state })
}

/// The steps that belong to the first set of containers.
#[derive(Debug, Default)]
struct FirstSet<'c, 'a> {
    last_step: Option<&'c PodCall<'a>>,
    /// End of the last StartContainer that did not fail.
    last_start_ns: Option<u64>,
    /// A step runs, or a container is created and not yet started.
    unfinished: bool,
}

impl<'c, 'a> FirstSet<'c, 'a> {
    fn collect(calls: &'c [PodCall<'a>], stopped_ns: Option<u64>) -> Self {
        let names = container_names(calls);
        let name_of = |call: &PodCall<'a>| call.container_name().or_else(|| names.get(call.container_id()?).copied());
        let mut set = Self::default();
        let mut members: Vec<Member<'a>> = Vec::new();
        let mut reached_ns = 0;
        for call in calls.iter().filter(|call| call.step().starts()) {
            let started_ns = call.started_ns();
            if stopped_ns.is_some_and(|stopped_ns| started_ns >= stopped_ns) {
                break;
            }
            let id = call.container_id();
            let name = name_of(call);
            let is_member = id.is_some() && members.iter().any(|member| member.id == id);
            if set.last_start_ns.is_some() && !(call.step() == Step::StartContainer && is_member) {
                let restarts = name.is_some() && members.iter().any(|member| member.name == name && member.started);
                let quiet_ns = if name.is_some() { INIT_QUIET_NS } else { UNNAMED_QUIET_NS };
                let is_container = matches!(call.step(), Step::CreateContainer | Step::StartContainer);
                let too_late = started_ns > u64::saturating_add(reached_ns, quiet_ns);
                if call.step() == Step::RunSandbox || restarts || (is_container && too_late) {
                    break;
                }
                if too_late {
                    continue; // a pull or a volume of what comes long after; what it is for decides
                }
            }
            match call.step() {
                Step::CreateContainer => members.push(Member { id, name, started: false, failed: call.failed() }),
                Step::StartContainer => Self::note_start(&mut members, call, id, name),
                _ => {}
            }
            if call.step() == Step::StartContainer && call.succeeded() {
                set.last_start_ns = set.last_start_ns.max(call.ended_ns());
            }
            reached_ns = reached_ns.max(call.ended_ns().unwrap_or(u64::MAX));
            set.last_step = Some(call);
            set.unfinished |= call.is_running();
        }
        set.unfinished |= members.iter().any(|member| !member.started && !member.failed);
        set
    }

    fn note_start(members: &mut Vec<Member<'a>>, call: &PodCall<'a>, id: Option<&'a str>, name: Option<&'a str>) {
        // Without ids (kubelet's spans alone) kubelet's own order holds: it starts what it created last.
        let known = members
            .iter_mut()
            .rev()
            .find(|member| !member.started && (member.id == id || member.id.is_none() || id.is_none()));
        match known {
            Some(member) => {
                member.started = call.succeeded();
                member.failed |= call.failed();
                member.name = member.name.or(name);
                member.id = member.id.or(id);
            }
            None => members.push(Member { id, name, started: call.succeeded(), failed: call.failed() }),
        }
    }
}

/// A container of the first set.
#[derive(Debug)]
struct Member<'a> {
    id: Option<&'a str>,
    name: Option<&'a str>,
    started: bool,
    failed: bool,
}

/// Names by container id, from whatever evidence has both.
fn container_names<'a>(calls: &[PodCall<'a>]) -> HashMap<&'a str, &'a str> {
    calls.iter().filter_map(|call| Some((call.container_id()?, call.container_name()?))).collect()
}

/// The first call that starts something, or the first sync that was about it: one that failed (kubelet waits for volumes,
/// secrets, claims) or that made one of these calls. A sync of a running pod that does nothing is no evidence of a start.
fn begin_ns(calls: &[PodCall<'_>], spans: &[SpanSeen]) -> Option<u64> {
    let steps = || calls.iter().filter(|call| call.step().starts());
    let first_step = steps().map(PodCall::started_ns).min();
    let syncs = spans.iter().filter(|span| span.role == SpanRole::Sync);
    let first_sync = syncs
        .filter(|sync| sync.error || steps().any(|call| call.trace_id() == Some(sync.key.trace_id)))
        .map(|sync| sync.started_ns)
        .min();
    [first_step, first_sync].into_iter().flatten().min()
}

/// When kubelet began to stop the pod for good: nothing was started after it.
fn stopped_ns(calls: &[PodCall<'_>], spans: &[SpanSeen]) -> Option<u64> {
    let last_step_ns = calls.iter().filter(|call| call.step().starts()).map(PodCall::started_ns).max();
    let stops = calls
        .iter()
        .filter(|call| matches!(call.step(), Step::StopSandbox | Step::RemoveSandbox))
        .map(PodCall::started_ns);
    let terminations =
        spans.iter().filter(|span| matches!(span.role, SpanRole::SyncTerminating | SpanRole::SyncTerminated));
    stops
        .chain(terminations.map(|span| span.started_ns))
        .filter(|&stop_ns| last_step_ns.is_none_or(|step_ns| stop_ns > step_ns))
        .min()
}

fn is_gone(calls: &[PodCall<'_>], spans: &[SpanSeen], stopped_ns: u64) -> bool {
    spans.iter().any(|span| span.role == SpanRole::SyncTerminated && !span.error)
        || calls
            .iter()
            .any(|call| call.step() == Step::RemoveSandbox && call.started_ns() >= stopped_ns && call.succeeded())
}
