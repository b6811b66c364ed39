//! One bar of a timeline, before it is written out.

use std::borrow::Cow;
use std::cmp::Reverse;

use crate::api::{EntryKind, EntrySource};

use super::cover::Interval;
use super::evidence::{ExecSeen, SpanSeen};
use super::pod_calls::PodCall;
use super::pulls::Pull;
use super::step::verb;

/// A call whose method was never seen; its index in the header table is older than the agent.
const UNNAMED: &str = "unnamed call";

#[derive(Debug, Clone, Copy)]
pub(super) struct Bar<'a> {
    pub(super) interval: Interval,
    pub(super) depth: u32,
    pub(super) what: What<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    Call(PodCall<'a>),
    /// kubelet's sync of the pod, or what kubelet did inside of it.
    Sync(&'a SpanSeen),
    /// What the runtime did inside a call.
    Inner {
        span: &'a SpanSeen,
        outlives_call: bool,
    },
    /// A process that the runtime started for a call.
    Exec {
        exec: &'a ExecSeen,
        /// The first of the processes of the call that led to it, perhaps itself.
        first: &'a ExecSeen,
        outlives_call: bool,
    },
    /// A part of a pause that another pod's image pull explains.
    Wait(&'a Pull),
    /// A pause that nothing in the record explains, between two bars or after the start of a sync.
    Gap {
        after: Option<&'a str>,
        opening: Option<&'a str>,
        before: Option<&'a str>,
        source: Option<EntrySource>,
        is_running: bool,
    },
}

/// Orders bars by what is the same however the evidence came.
pub(super) type SortKey<'a> = (Group, u64, u32, Reverse<u64>, Option<&'a str>, Identity);

/// Start and pid of the first process that led to a process; start and 0 of everything else.
type Group = (u64, u32);

/// What tells bars of one name apart: connection and stream, trace and span, or pid.
type Identity = ([u8; 16], u64, u64);

impl<'a> Bar<'a> {
    pub(super) fn kind(&self) -> EntryKind {
        match &self.what {
            What::Call(call) => call.kind(),
            What::Sync(_) => EntryKind::Sync,
            What::Inner { .. } => EntryKind::Cri,
            What::Exec { .. } => EntryKind::Exec,
            What::Wait(_) => EntryKind::Wait,
            What::Gap { .. } => EntryKind::Gap,
        }
    }

    pub(super) fn source(&self) -> EntrySource {
        match &self.what {
            What::Call(call) => call.source(),
            What::Sync(_) | What::Inner { .. } => EntrySource::Otlp,
            What::Exec { .. } => EntrySource::Exec,
            What::Wait(pull) => pull.source,
            What::Gap { source, .. } => source.unwrap_or(EntrySource::Otlp),
        }
    }

    /// Whether the bar accounts for time. A sync spans everything and explains nothing.
    pub(super) fn covers(&self) -> bool {
        !matches!(self.what, What::Sync(_) | What::Gap { .. })
    }

    /// The name, of what was seen.
    pub(super) fn label(&self) -> Option<&'a str> {
        match self.what {
            What::Call(call) => Some(call.method().unwrap_or(UNNAMED)),
            What::Sync(span) | What::Inner { span, .. } => Some(&span.name),
            What::Exec { exec, .. } => Some(&exec.name),
            What::Wait(_) | What::Gap { .. } => None,
        }
    }

    pub(super) fn name(&self) -> Cow<'a, str> {
        match self.what {
            What::Wait(pull) => {
                format!("wait for image pull of {}", pull.pod_name().as_deref().unwrap_or("an unknown pod")).into()
            }
            What::Gap { after, opening, before, .. } => gap_name(after, opening, before).into(),
            _ => self.label().unwrap_or_default().into(),
        }
    }

    /// By time, parents before children. CNI plugins run side by side: what one starts stands below it and not below the other.
    pub(super) fn sort_key(&self) -> SortKey<'a> {
        let group = match self.what {
            What::Exec { first, .. } => (first.started_ns, first.pid),
            _ => (self.interval.from_ns, 0),
        };
        (group, self.interval.from_ns, self.depth, Reverse(self.interval.to_ns), self.label(), self.identity())
    }

    fn identity(&self) -> Identity {
        match self.what {
            What::Call(call) => {
                let (connection, stream) = call.wire.map_or((0, 0), |wire| (wire.connection, wire.stream));
                (call.trace_id().unwrap_or_default(), connection, u64::from(stream))
            }
            What::Sync(span) | What::Inner { span, .. } => (span.key.trace_id, u64::from_be_bytes(span.key.span_id), 0),
            What::Exec { exec, .. } => ([0; 16], u64::from(exec.pid), 0),
            What::Wait(pull) => ([0; 16], pull.interval.from_ns, 0),
            What::Gap { .. } => ([0; 16], 0, 0),
        }
    }
}

fn gap_name(after: Option<&str>, opening: Option<&str>, before: Option<&str>) -> String {
    let after = after.map(|name| verb(name).to_owned()).or_else(|| opening.map(|sync| format!("start of {sync}")));
    match (after, before.map(verb)) {
        (Some(after), Some(before)) => format!("gap between {after} and {before}"),
        (Some(after), None) => format!("gap after {after}"),
        (None, Some(before)) => format!("gap before {before}"),
        (None, None) => "gap".to_owned(),
    }
}
