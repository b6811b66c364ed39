//! Writes what is known of a call, a span or an exec as an entry of the debug API.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{Entry, EntryKind, EntrySource};
use crate::call::Hex;

use super::cover::Interval;
use super::evidence::{CallSeen, ExecSeen, SpanSeen};
use super::pod_calls::PodCall;
use super::pulls::Pull;

pub(super) type Attributes = BTreeMap<String, Value>;

/// A call whose method was never seen; its index in the header table is older than the agent.
const UNNAMED: &str = "unnamed call";

/// `now_ns` is the end of a call that runs.
pub(super) fn call(call: &PodCall<'_>, depth: u32, now_ns: u64) -> Entry {
    let mut attributes = Attributes::new();
    if let Some(wire) = call.wire {
        wire_attributes(&mut attributes, wire);
    }
    span_attributes(&mut attributes, call);
    set(&mut attributes, "status", call.status());
    set(&mut attributes, "container_id", call.container_id());
    set(&mut attributes, "container_name", call.container_name());
    set(&mut attributes, "image", call.image());
    if call.is_running() {
        set(&mut attributes, "running", Some(true));
    }
    if call.failed() {
        set(&mut attributes, "error", Some(true));
    }
    Entry {
        name: call.method().unwrap_or(UNNAMED).to_owned(),
        kind: call.kind(),
        source: call.source(),
        start_unix_nano: call.started_ns(),
        end_unix_nano: call.ended_ns().unwrap_or(now_ns).max(call.started_ns()),
        depth,
        attributes,
    }
}

/// kubelet's sync of the pod, or what kubelet did inside of it.
pub(super) fn sync(span: &SpanSeen, depth: u32) -> Entry {
    let mut attributes = Attributes::new();
    identity(&mut attributes, span);
    set(&mut attributes, "update_type", span.update_type.as_deref());
    entry(span, EntryKind::Sync, depth, Interval::new(span.started_ns, span.ended_ns.max(span.started_ns)), attributes)
}

/// What the runtime did inside a call; `call` bounds it.
pub(super) fn inner(span: &SpanSeen, depth: u32, call: Interval) -> Entry {
    let mut attributes = Attributes::new();
    identity(&mut attributes, span);
    set(&mut attributes, "container_id", span.container_id.as_deref());
    set(&mut attributes, "container_name", span.container_name.as_deref());
    set(&mut attributes, "image", span.image.as_deref());
    let shown = clip(Interval::new(span.started_ns, span.ended_ns), call, &mut attributes);
    entry(span, EntryKind::Cri, depth, shown, attributes)
}

/// A process that the runtime started for a call; `call` bounds it. Shims and monitors outlive the call that starts them,
/// and what they do after it is no part of it.
pub(super) fn exec(exec: &ExecSeen, depth: u32, call: Interval) -> Entry {
    let mut attributes = Attributes::new();
    set(&mut attributes, "pid", Some(exec.pid));
    set(&mut attributes, "parent_pid", Some(exec.parent_pid));
    set(&mut attributes, "exit_status", exec.exit_status);
    set(&mut attributes, "cpu_ns", exec.cpu_ns);
    set(&mut attributes, "container_id", exec.container_id.as_deref());
    if exec.ended_ns.is_none() {
        set(&mut attributes, "running", Some(true));
    }
    let whole = Interval::new(exec.started_ns, exec.ended_ns.unwrap_or(u64::MAX));
    let shown = clip(whole, call, &mut attributes);
    Entry {
        name: exec.name.to_string(),
        kind: EntryKind::Exec,
        source: EntrySource::Exec,
        start_unix_nano: shown.from_ns,
        end_unix_nano: shown.to_ns,
        depth,
        attributes,
    }
}

/// A part of a pause that another pod's image pull explains.
pub(super) fn wait(part: Interval, pull: &Pull, depth: u32) -> Entry {
    let mut attributes = Attributes::new();
    let pod = pull.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
    set(&mut attributes, "evidence", Some("another image pull in the same serial queue"));
    set(&mut attributes, "pod", pod.as_deref());
    set(&mut attributes, "image", pull.image.as_deref());
    set(&mut attributes, "pull_start_unix_nano", Some(pull.interval.from_ns));
    set(&mut attributes, "pull_end_unix_nano", (!pull.is_running).then_some(pull.interval.to_ns));
    Entry {
        name: format!("wait for image pull of {}", pod.as_deref().unwrap_or("an unknown pod")),
        kind: EntryKind::Wait,
        source: pull.source,
        start_unix_nano: part.from_ns,
        end_unix_nano: part.to_ns,
        depth,
        attributes,
    }
}

/// What stands around a pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'e> {
    pub(super) after: Option<&'e Entry>,
    pub(super) before: Option<&'e Entry>,
    /// The sync that the pause, and the pod's start, began with.
    pub(super) opening: Option<&'e Entry>,
}

impl Beside<'_> {
    /// A pause stands where its neighbours do, one below the sync it began with.
    pub(super) fn depth(&self) -> u32 {
        let neighbours = self.after.into_iter().chain(self.before).map(|entry| entry.depth);
        neighbours.min().or(self.opening.map(|sync| sync.depth + 1)).unwrap_or(0)
    }
}

/// A pause that nothing in the record explains.
pub(super) fn gap(part: Interval, beside: &Beside<'_>, depth: u32, is_running: bool) -> Entry {
    // In full for the attributes, short for the name.
    let named = |entry: &Entry| (entry.name.clone(), short(entry).to_owned());
    let opened = |sync: &Entry| (format!("start of {}", sync.name), format!("start of {}", sync.name));
    let after = beside.after.map(named).or_else(|| beside.opening.map(opened));
    let before = beside.before.map(named);
    let name = match (&after, &before) {
        (Some((_, after)), Some((_, before))) => format!("gap between {after} and {before}"),
        (Some((_, after)), None) => format!("gap after {after}"),
        (None, Some((_, before))) => format!("gap before {before}"),
        (None, None) => "gap".to_owned(),
    };
    let mut attributes = Attributes::new();
    set(&mut attributes, "after", after.map(|(whole, _)| whole));
    set(&mut attributes, "before", before.map(|(whole, _)| whole));
    if is_running {
        set(&mut attributes, "running", Some(true));
    }
    let neighbour = beside.after.or(beside.before).or(beside.opening);
    Entry {
        name,
        kind: EntryKind::Gap,
        source: neighbour.map_or(EntrySource::Otlp, |entry| entry.source),
        start_unix_nano: part.from_ns,
        end_unix_nano: part.to_ns,
        depth,
        attributes,
    }
}

fn short(entry: &Entry) -> &str {
    super::step::verb(&entry.name)
}

fn wire_attributes(attributes: &mut Attributes, wire: &CallSeen) {
    set(attributes, "connection", Some(wire.connection));
    set(attributes, "stream", Some(wire.stream));
    set(attributes, "socket", Some(wire.socket.path.as_str()));
    set(attributes, "naming", Some(wire.naming.label()));
    set(attributes, "request_wait_ns", wire.points.request_wait_ns());
    set(attributes, "handling_ns", wire.points.handling_ns());
    set(attributes, "response_send_ns", wire.points.response_send_ns());
    set(attributes, "response_wait_ns", wire.points.response_wait_ns());
    set(attributes, "sandbox_id", wire.sandbox_id.as_deref());
    set(attributes, "client_pid", wire.client_pid);
    set(attributes, "server_pid", wire.server_pid);
    if wire.streaming {
        set(attributes, "streaming", Some(true));
    }
    if wire.lost_track {
        set(attributes, "lost_track", Some(true));
    }
}

fn span_attributes(attributes: &mut Attributes, call: &PodCall<'_>) {
    set(attributes, "trace_id", call.trace_id().map(|id| Hex(&id).to_string()));
    set(attributes, "client_span_id", call.span().map(|key| Hex(&key.span_id).to_string()));
    set(attributes, "server_span_id", call.server.map(|span| Hex(&span.key.span_id).to_string()));
    let whole_ns = call.wire.and_then(|wire| wire.points.whole_ns());
    let client_ns = call.client.map(|span| span.ended_ns.saturating_sub(span.started_ns));
    // Saturating: both sides read different clocks, and an overhead below zero would be their difference only.
    set(attributes, "client_overhead_ns", client_ns.zip(whole_ns).map(|(client, whole)| client.saturating_sub(whole)));
}

fn identity(attributes: &mut Attributes, span: &SpanSeen) {
    set(attributes, "trace_id", Some(Hex(&span.key.trace_id).to_string()));
    set(attributes, "span_id", Some(Hex(&span.key.span_id).to_string()));
    set(attributes, "parent_span_id", span.parent.map(|id| Hex(&id).to_string()));
    if span.error {
        set(attributes, "error", Some(true));
    }
}

fn entry(span: &SpanSeen, kind: EntryKind, depth: u32, shown: Interval, attributes: Attributes) -> Entry {
    Entry {
        name: span.name.to_string(),
        kind,
        source: EntrySource::Otlp,
        start_unix_nano: shown.from_ns,
        end_unix_nano: shown.to_ns,
        depth,
        attributes,
    }
}

/// Cuts `whole` to the call it belongs to and says so.
fn clip(whole: Interval, call: Interval, attributes: &mut Attributes) -> Interval {
    let from_ns = whole.from_ns.clamp(call.from_ns, call.to_ns);
    let to_ns = whole.to_ns.clamp(from_ns, call.to_ns);
    if whole.to_ns > call.to_ns {
        set(attributes, "outlives_call", Some(true));
    }
    Interval::new(from_ns, to_ns)
}

fn set(attributes: &mut Attributes, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        attributes.insert(key.to_owned(), value.into());
    }
}
