//! No order of calls and spans gives a span another pod's identity.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What happens on a node with some pods: each starts, is polled, ends; what is left is collected.
struct Story {
    calls: Vec<Step>,
    /// Spans with the pod that each is truly of.
    spans: Vec<(&'static str, Span, Option<String>)>,
}

/// A call to come, by the ids of its span.
struct Step {
    trace: u8,
    span_id: u64,
    method: &'static str,
    subject: Subject,
    response_id: Option<String>,
}

const SERVER_SPANS: u64 = 1 << 20;
const ROOTS: u64 = 1 << 40;

proptest! {
    #[test]
    fn after_their_calls_all_spans_find_their_pod(pods in 1..5_usize, order in any_order()) {
        let story = Story::of(pods);
        let mut node = Node::new();
        let calls: Vec<_> = story.calls.into_iter().map(|step| node.step(step)).collect();
        let joined = calls.into_iter().collect();
        for (owner, truth, name) in pass(&mut node, story.spans, &order, &joined) {
            prop_assert_eq!(owner, truth, "{}", name);
        }
        prop_assert_eq!(node.enricher.counts().store.conflicts, 0);
    }

    #[test]
    fn spans_alone_find_their_pod_or_none(pods in 1..5_usize, order in any_order()) {
        let mut node = Node::new();
        for (owner, truth, name) in pass(&mut node, Story::of(pods).spans, &order, &HashMap::new()) {
            prop_assert!(owner.is_none() || owner == truth, "{}: {:?}, not {:?}", name, owner, truth);
        }
    }

    #[test]
    fn calls_and_spans_in_any_order_find_their_pod_or_none(pods in 1..5_usize, order in any_order(), cut in any::<Index>()) {
        let mut story = Story::of(pods);
        let mut node = Node::new();
        let mut joined = HashMap::new();
        let rest = story.calls.split_off(cut.index(story.calls.len()));
        let later = story.spans.split_off(story.spans.len() / 2);
        let mut all = Vec::new();
        for (calls, spans) in [(story.calls, story.spans), (rest, later)] {
            joined.extend(calls.into_iter().map(|step| node.step(step)));
            all.extend(pass(&mut node, spans, &order, &joined));
        }
        for (owner, truth, name) in all {
            prop_assert!(owner.is_none() || owner == truth, "{}: {:?}, not {:?}", name, owner, truth);
        }
    }
}

fn any_order() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 200)
}

/// Passes the spans, drawn in this order, three to a request; returns the pod that each was given and its true one.
fn pass(
    node: &mut Node,
    mut spans: Vec<(&'static str, Span, Option<String>)>,
    order: &[Index],
    joined: &HashMap<(u8, u64), Call>,
) -> Vec<(Option<String>, Option<String>, String)> {
    let mut order = order.iter().cycle();
    let mut results = Vec::new();
    while !spans.is_empty() {
        let service = spans[0].0;
        let mut request = Vec::new();
        let mut truths = Vec::new();
        while request.len() < 3 && !spans.is_empty() {
            let next = order.next().map_or(0, |index| index.index(spans.len()));
            if spans[next].0 != service && !request.is_empty() {
                break;
            }
            let (_, span, truth) = spans.swap_remove(next);
            let is_server = span.kind == span::SpanKind::Server as i32;
            let ids = if is_server { &span.parent_span_id } else { &span.span_id };
            let span_id = ids.as_slice().try_into().map_or(ROOT, u64::from_be_bytes);
            truths.push((truth, span.name.clone()));
            request.push((span.clone(), joined.get(&(span.trace_id[0], span_id)).cloned()));
        }
        let (_, passed) = node.pass_with_resource(service, request);
        let owners = pods(&passed).into_iter().map(|pod| pod.map(str::to_owned)).collect::<Vec<_>>();
        results.extend(owners.into_iter().zip(truths).map(|(owner, (truth, name))| (owner, truth, name)));
    }
    results
}

impl Node {
    fn step(&mut self, step: Step) -> ((u8, u64), Call) {
        self.calls = u32::try_from(step.span_id).unwrap() - 1;
        let call = self.cri(step.trace, step.method, step.subject, step.response_id.as_deref());
        ((step.trace, step.span_id), call)
    }
}

impl Story {
    fn of(pods: usize) -> Self {
        let names: Vec<String> = (0..pods).map(|pod| format!("pod-{pod}")).collect();
        let mut story = Self { calls: Vec::new(), spans: Vec::new() };
        let mut trace = 0;
        // The same step of every pod before the next, so that their traces interleave.
        let starts: Vec<u8> = names.iter().map(|name| story.root(&mut trace, "syncPod", Some(name))).collect();
        for step in 0..4 {
            names.iter().zip(&starts).for_each(|(name, trace)| story.start(*trace, name, step));
        }
        for name in &names {
            trace += 1;
            story.call(trace, "RuntimeService/PodSandboxStatus", sandbox(name), None, Some(name));
        }
        trace += 1;
        story.call(trace, "RuntimeService/ListContainers", Subject::Unknown, None, None);
        for name in &names {
            let trace = story.root(&mut trace, "syncTerminatingPod", Some(name));
            story.call(trace, "RuntimeService/StopContainer", container(name), None, Some(name));
            story.call(trace, "RuntimeService/ListPodSandbox", Subject::Unknown, None, Some(name));
        }
        let trace = story.root(&mut trace, "Containers/GarbageCollect", None);
        story.call(trace, "RuntimeService/ListContainers", Subject::Unknown, None, None);
        for name in &names {
            story.call(trace, "RuntimeService/RemoveContainer", container(name), None, Some(name));
            story.call(trace, "RuntimeService/StopPodSandbox", sandbox(name), None, Some(name));
            story.call(trace, "RuntimeService/RemovePodSandbox", sandbox(name), None, Some(name));
        }
        story
    }

    fn root(&mut self, trace: &mut u8, name: &str, pod: Option<&str>) -> u8 {
        *trace += 1;
        let span_id = ROOTS + u64::from(*trace);
        let span = match pod {
            Some(pod) => sync(*trace, span_id, name, pod),
            None => internal(*trace, span_id, ROOT, name),
        };
        self.spans.push(("kubelet", span, pod.map(str::to_owned)));
        *trace
    }

    fn start(&mut self, trace: u8, name: &str, step: u32) {
        let (sandbox_id, container_id) = (id(name, "sandbox"), id(name, "container"));
        match step {
            0 => self.call(trace, "RuntimeService/RunPodSandbox", metadata(name), Some(sandbox_id), Some(name)),
            1 => self.call(trace, "ImageService/ImageStatus", Subject::Image("app".to_owned()), None, Some(name)),
            2 => self.call(trace, "RuntimeService/CreateContainer", sandbox(name), Some(container_id), Some(name)),
            _ => self.call(trace, "RuntimeService/StartContainer", container(name), None, Some(name)),
        }
    }

    /// A call with its two spans; the server's tells what containerd 2.x tells.
    fn call(
        &mut self,
        trace: u8,
        method: &'static str,
        subject: Subject,
        response_id: Option<String>,
        pod: Option<&str>,
    ) {
        let span_id = self.calls.len() as u64 + 1;
        let root = self.spans.iter().find(|(_, span, _)| span.trace_id[0] == trace && span.parent_span_id.is_empty());
        let root = root.map_or(ROOT, |_| ROOTS + u64::from(trace));
        let mut server = server(trace, SERVER_SPANS + span_id, span_id, method);
        server.attributes = match (&subject, &response_id) {
            (Subject::Sandbox { name, uid, .. }, Some(id)) => {
                vec![attribute("sandbox.id", id), attribute("sandbox.name", &format!("{name}_default_{uid}_0"))]
            }
            (Subject::SandboxId(sandbox), Some(id)) => {
                vec![attribute("sandbox.id", sandbox), attribute("container.id", id)]
            }
            (Subject::SandboxId(id), None) => vec![attribute("sandbox.id", id)],
            (Subject::ContainerId(id), _) => vec![attribute("container.id", id)],
            _ => Vec::new(),
        };
        let mut client = client(trace, span_id, root, method);
        // In the order of the calls, whatever their ids.
        (client.start_time_unix_nano, server.start_time_unix_nano) = (span_id * 1_000, span_id * 1_000 + 100);
        self.spans.push(("kubelet", client, pod.map(str::to_owned)));
        self.spans.push(("containerd", server, pod.map(str::to_owned)));
        self.calls.push(Step { trace, span_id, method, subject, response_id });
    }
}
