//! Writes bars as entries of the debug API.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serde_json::Value;

use crate::api::Entry;
use crate::call::Hex;

use super::bar::{Bar, What};
use super::evidence::{BETWEEN_WORDS, CallSeen, ExecSeen, SpanSeen};
use super::pod_calls::PodCall;
use super::pulls::Pull;

type Attributes = BTreeMap<String, Value>;

pub(super) fn entry(bar: &Bar<'_>) -> Entry {
    Entry {
        name: bar.name().into_owned(),
        kind: bar.kind(),
        source: bar.source(),
        start_unix_nano: bar.interval.from_ns,
        end_unix_nano: bar.interval.to_ns,
        depth: bar.depth,
        attributes: attributes(&bar.what),
    }
}

fn attributes(what: &What<'_>) -> Attributes {
    let mut attributes = Attributes::new();
    match what {
        What::Call(call) => call_attributes(&mut attributes, call),
        What::Sync(span) => {
            identity(&mut attributes, span);
            set(&mut attributes, "update_type", span.update_type.as_deref());
        }
        What::Inner { span, outlives_call } => {
            identity(&mut attributes, span);
            set(&mut attributes, "container_id", span.container_id.as_deref());
            set(&mut attributes, "container_name", span.container_name.as_deref());
            set(&mut attributes, "image", span.image.as_deref());
            set_if(&mut attributes, "outlives_call", *outlives_call);
        }
        What::Exec { exec, outlives_call, .. } => {
            exec_attributes(&mut attributes, exec);
            set_if(&mut attributes, "outlives_call", *outlives_call);
        }
        What::Wait(pull) => wait_attributes(&mut attributes, pull),
        What::Gap { after, opening, before, is_running, .. } => {
            let after = after.map(str::to_owned).or_else(|| opening.map(|sync| format!("start of {sync}")));
            set(&mut attributes, "after", after);
            set(&mut attributes, "before", *before);
            set_if(&mut attributes, "running", *is_running);
        }
    }
    attributes
}

fn call_attributes(attributes: &mut Attributes, call: &PodCall<'_>) {
    if let Some(wire) = call.wire {
        wire_attributes(attributes, wire);
    }
    span_attributes(attributes, call);
    set(attributes, "status", call.status());
    set(attributes, "container_id", call.container_id());
    set(attributes, "container_name", call.container_name());
    set(attributes, "image", call.image());
    set_if(attributes, "running", call.is_running());
    set_if(attributes, "error", call.failed());
}

fn exec_attributes(attributes: &mut Attributes, exec: &ExecSeen) {
    set(attributes, "pid", Some(exec.pid));
    set(attributes, "parent_pid", Some(exec.parent_pid));
    set(attributes, "argv", words(&exec.argv));
    set(attributes, "cni", words(&exec.cni));
    if let Some(status) = exec.exit_status {
        let ended = ExitStatus::from_raw(status);
        set(attributes, "exit_code", ended.code());
        set(attributes, "signal", ended.signal());
        set_if(attributes, "error", !ended.success());
    }
    set(attributes, "cpu_ns", exec.cpu_ns);
    set(attributes, "container_id", exec.container_id.as_deref());
    set_if(attributes, "running", exec.ended_ns.is_none());
}

/// As a list; `None` for none.
fn words(joined: &str) -> Option<Vec<String>> {
    (!joined.is_empty()).then(|| joined.split(BETWEEN_WORDS).map(str::to_owned).collect())
}

fn wait_attributes(attributes: &mut Attributes, pull: &Pull) {
    set(attributes, "evidence", Some("another image pull in the same serial queue"));
    set(attributes, "pod", pull.pod_name());
    set(attributes, "image", pull.image.as_deref());
    set(attributes, "pull_start_unix_nano", Some(pull.interval.from_ns));
    set(attributes, "pull_end_unix_nano", (!pull.is_running).then_some(pull.interval.to_ns));
}

fn wire_attributes(attributes: &mut Attributes, wire: &CallSeen) {
    set(attributes, "connection", Some(wire.connection));
    set(attributes, "stream", Some(wire.stream));
    set(attributes, "socket", Some(&*wire.socket_path));
    set(attributes, "naming", Some(wire.naming.label()));
    set(attributes, "request_wait_ns", wire.points.request_wait_ns());
    set(attributes, "handling_ns", wire.points.handling_ns());
    set(attributes, "response_send_ns", wire.points.response_send_ns());
    set(attributes, "response_wait_ns", wire.points.response_wait_ns());
    set(attributes, "sandbox_id", wire.sandbox_id.as_deref());
    set(attributes, "client_pid", wire.client_pid);
    set(attributes, "server_pid", wire.server_pid);
    set_if(attributes, "streaming", wire.streaming);
    set_if(attributes, "lost_track", wire.lost_track);
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
    set_if(attributes, "error", span.error);
}

fn set(attributes: &mut Attributes, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        attributes.insert(key.to_owned(), value.into());
    }
}

fn set_if(attributes: &mut Attributes, key: &str, is_so: bool) {
    set(attributes, key, is_so.then_some(true));
}
