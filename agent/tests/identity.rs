//! Joins and identity on recordings of a real node, against answers worked out from the recordings alone.

mod recording;

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use recording::copies::{Copy, together};
use recording::{Arrival, JsonSpan, arrivals, calls, started};
use spanlet::batch::{Batch, Source};
use spanlet::call::{Call, CallEvent, Hex, Subject};
use spanlet::config;
use spanlet::correlate::{Correlator, Limits, Outcome};
use spanlet::enrich::Enricher;
use spanlet_otlp::TraceRequest;

/// Namespace, name and uid.
type Pod = (String, String, String);
/// Trace id and span id, in hexadecimal digits.
type SpanKey = (String, String);

#[test]
fn every_span_of_a_recorded_run_finds_its_call_and_its_pod() {
    let calls = calls("k134-c17");
    let arrivals = arrivals("cri/cri-conn-k134-c17-otlp");
    let expected = Expected::of(&arrivals, &calls);
    let mut agent = Agent::new();
    let seen = agent.run(&calls, &arrivals);

    let counts = agent.correlator.counts();
    assert_eq!(counts.of(Outcome::Client), 132);
    assert_eq!(counts.of(Outcome::Server), 131);
    assert_eq!([Outcome::Duplicate, Outcome::Refused, Outcome::Missed].map(|outcome| counts.of(outcome)), [0; 3]);
    for span in &seen {
        let joined = span.call.as_ref().map(|call| call.traceparent.unwrap().to_string());
        assert_eq!(joined, expected.traceparent(&span.json), "{}", span.json.name);
        assert_eq!(
            span.pod(),
            expected.pods.get(&span.json.key()).cloned(),
            "{} {:?}",
            span.json.name,
            span.json.key()
        );
    }
    assert_eq!(expected.pods.len(), 53, "spans of a pod, of 347");
    let store = agent.enricher.counts();
    assert_eq!((store.spans_owned, store.spans_early, store.store.conflicts), (53, 0, 0));
}

/// The run of the recorded pod as this many pods at once.
const PODS: u8 = 3;

fn copies(arrivals: &[Arrival]) -> Vec<Copy<'_>> {
    let sync = arrivals.iter().flat_map(|arrival| &arrival.spans).find(|span| span.name.starts_with("sync")).unwrap();
    let [pod_name, pod_uid] = ["k8s.pod.name", "k8s.pod.uid"].map(|key| sync.attributes[key].as_str());
    (0..PODS).map(|number| Copy { number, pod_name, pod_uid }).collect()
}

/// How many spans are expected to be each pod's; the same for all that live through the same.
fn spans_of_each(expected: &Expected) -> Vec<usize> {
    let mut counts: HashMap<&Pod, usize> = HashMap::new();
    for pod in expected.pods.values() {
        *counts.entry(pod).or_default() += 1;
    }
    counts.into_values().collect()
}

#[test]
fn pods_that_live_through_the_recorded_run_at_once_are_not_mixed_up() {
    let recorded = arrivals("cri/cri-conn-k134-c17-otlp");
    let copies = copies(&recorded);
    let recorded_calls = calls("k134-c17");
    let mut calls: Vec<Call> =
        copies.iter().flat_map(|copy| recorded_calls.iter().map(|call| copy.call(call))).collect();
    calls.sort_by_key(|call| call.started_ns);
    let arrivals = together(&recorded, &copies);
    let expected = Expected::of(&arrivals, &calls);
    assert_eq!(spans_of_each(&expected), [53; PODS as usize]);
    let mut agent = Agent::new();
    for span in agent.run(&calls, &arrivals) {
        let joined = span.call.as_ref().map(|call| call.traceparent.unwrap().to_string());
        assert_eq!(joined, expected.traceparent(&span.json), "{}", span.json.name);
        let key = span.json.key();
        assert_eq!(span.pod(), expected.pods.get(&key).cloned(), "{} {key:?}", span.json.name);
    }
    let counts = agent.enricher.counts();
    assert_eq!((counts.spans_owned, counts.spans_early, counts.store.conflicts), (53 * u64::from(PODS), 0, 0));
    assert_eq!(agent.correlator.counts().of(Outcome::Client), 132 * u64::from(PODS));
}

#[test]
fn pods_that_live_at_once_are_not_mixed_up_by_their_spans_alone() {
    for (name, owned, early) in [("otlp/k134-c22-http", 81, 3), ("cri/cri-conn-k134-c17-otlp", 31, 4)] {
        let recorded = arrivals(name);
        let copies = copies(&recorded);
        let arrivals = together(&recorded, &copies);
        let expected = Expected::of(&arrivals, &[]);
        assert_eq!(spans_of_each(&expected).len(), usize::from(PODS));
        let mut agent = Agent::new();
        let seen = agent.run(&[], &arrivals);
        let pods = usize::from(PODS);
        assert_eq!(owned_and_early(&arrivals, &expected, &seen), (owned * pods, early * pods), "{name}");
        assert_eq!(agent.enricher.counts().store.conflicts, 0);
    }
}

#[test]
fn joined_spans_are_told_their_phases_and_nothing_else_is() {
    let calls = calls("k134-c17");
    let mut agent = Agent::new();
    let seen = agent.run(&calls, &arrivals("cri/cri-conn-k134-c17-otlp"));
    let mut complete = 0;
    for span in &seen {
        let int = |name: &str| span.attribute(&format!("spanlet.call.{name}")).map(|value| value.parse().unwrap());
        let told =
            ["request_wait_ns", "handling_ns", "response_send_ns", "response_wait_ns", "client_overhead_ns"].map(int);
        let Some(call) = &span.call else {
            assert_eq!((told, span.attribute("server.address")), ([None; 5], None));
            continue;
        };
        assert_eq!(span.attribute("server.address").as_deref(), Some("/run/containerd/containerd.sock"));
        // The recorder's own stamps may be out of order by some microseconds: such a wait is none, another phase is left out.
        let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        let waited = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        let points = &call.points;
        let whole_ns = between(points.request_written_ns, points.response_read_ns);
        let span_ns = span.json.end_unix_nano - span.json.start_unix_nano;
        let is_client = span.json.kind == "SPAN_KIND_CLIENT";
        let expected = [
            waited(points.request_written_ns, points.request_read_ns),
            between(points.request_read_ns, points.response_started_ns),
            between(points.response_started_ns, points.response_written_ns),
            waited(points.response_written_ns, points.response_read_ns),
            whole_ns.and_then(|whole_ns| span_ns.checked_sub(whole_ns)).filter(|_| is_client),
        ];
        assert_eq!(told, expected, "{}", span.json.name);
        complete += usize::from(told.iter().all(Option::is_some));
    }
    assert_eq!(complete, 132, "client spans, with all of it");
}

#[test]
fn spans_alone_tell_their_pod_where_they_can() {
    let arrivals = arrivals("otlp/k134-c22-http");
    let expected = Expected::of(&arrivals, &[]);
    let seen = Agent::new().run(&[], &arrivals);
    assert_eq!(owned_and_early(&arrivals, &expected, &seen), (81, 3), "spans of a pod, of 487");
    // Of the two containers, the sandbox's own has no name.
    let app = "1ed8f4db9039513e03f91d116965ea009b072014877323a727b0923e53ead8d4";
    let named: Vec<&Seen> = seen.iter().filter(|span| span.attribute("k8s.container.name").is_some()).collect();
    assert!(named.iter().all(|span| span.attribute("container.id").as_deref() == Some(app)));
    assert!(named.iter().all(|span| span.attribute("k8s.container.name").as_deref() == Some("app")));
    assert_eq!(named.len(), 29);
    assert!(
        seen.iter()
            .filter(|span| ids_of(&span.json).next() == Some(app))
            .all(|span| span.attribute("k8s.container.name").is_some())
    );
}

#[test]
fn the_api_servers_spans_belong_to_the_cluster() {
    let arrivals = arrivals("otlp/k134-c17-api");
    let expected = Expected::of(&arrivals, &[]);
    let mut agent = Agent::new();
    let seen = agent.run(&[], &arrivals);
    for span in seen.iter().filter(|span| span.json.service == "apiserver") {
        assert_eq!(span.pod(), None);
        assert_eq!(span.attribute("k8s.pod.name"), None);
    }
    assert_eq!(owned_and_early(&arrivals, &expected, &seen), (30, 4), "spans of a pod, of 2,321");
    assert_eq!(agent.enricher.counts().spans_early, 4);
}

#[test]
fn the_request_that_made_a_recorded_pod_is_linked_from_its_syncs() {
    let arrivals = arrivals("otlp/k134-c17-api");
    let seen = Agent::new().run(&[], &arrivals);
    let post = "POST /api/v1/namespaces/{:namespace}/pods";
    let made: Vec<&Seen> = seen.iter().filter(|span| span.json.name == post).collect();
    assert_eq!(made.len(), 1);
    for span in &seen {
        let links: Vec<_> = span.after.links.iter().map(|link| link.span_id.clone()).collect();
        let expected = if span.json.name == "syncPod" { vec![made[0].after.span_id.clone()] } else { Vec::new() };
        assert_eq!(links, expected, "{} {}", span.json.service, span.json.name);
    }
}

#[test]
fn every_resource_is_told_its_node_and_keeps_what_it_has() {
    for name in ["cri/cri-conn-k134-c17-otlp", "otlp/k134-c22-http", "otlp/k134-c17-api"] {
        let mut agent = Agent::new();
        for arrival in arrivals(name) {
            let before = ExportTraceServiceRequest::decode(arrival.bytes.clone()).unwrap();
            let (_, encoded) = agent.pass(&arrival);
            assert_eq!(encoded.resource_spans.len(), arrival.resources);
            for (before, after) in before.resource_spans.iter().zip(&encoded.resource_spans) {
                let [before, after] = [before, after].map(|spans| &spans.resource.as_ref().unwrap().attributes);
                assert_eq!(&after[..before.len()], &before[..]);
                assert_eq!(value(after, "k8s.node.name").as_deref(), Some("node-1"));
                assert_eq!(value(after, "k8s.cluster.name").as_deref(), Some("test"));
                assert_eq!(value(after, "deployment.environment").as_deref(), Some("lab"));
                assert_eq!(value(after, "host.name"), value(before, "host.name").or(Some("node-1".to_owned())));
                assert_ne!(value(after, "service.name").as_deref(), Some("never"));
            }
        }
    }
}

/// Checks that spans have the pod they should have, or none where only a later request tells of it; counts both.
fn owned_and_early(arrivals: &[Arrival], expected: &Expected, seen: &[Seen]) -> (usize, usize) {
    let numbered = arrivals.iter().enumerate();
    let all: Vec<(usize, &JsonSpan)> =
        numbered.flat_map(|(request, arrival)| arrival.spans.iter().map(move |span| (request, span))).collect();
    let (mut owned, mut early) = (0, 0);
    for (span, (request, json)) in seen.iter().zip(&all) {
        let pod = span.pod();
        let expected = expected.pods.get(&json.key()).cloned();
        if pod.is_some() || expected.is_none() {
            assert_eq!(pod, expected, "{} {:?}", json.name, json.key());
            owned += usize::from(pod.is_some());
            continue;
        }
        // Its parent (`task.Wait` lasts as long as the container) or kubelet's sync span, which is exported when it is over.
        let tells = |(_, other): &&(usize, &JsonSpan)| {
            other.trace_id == json.trace_id
                && (other.name.starts_with("sync") || json.parent_id.as_ref() == Some(&other.span_id))
        };
        assert!(all.iter().filter(tells).all(|(told, _)| told > request), "{} {:?}", json.name, json.key());
        early += 1;
    }
    (owned, early)
}

// === the part of the agent that is tested ===

struct Agent {
    correlator: Correlator,
    enricher: Enricher,
}

/// A span as it left: what was added to it, the call it was joined to.
struct Seen {
    json: JsonSpan,
    after: Span,
    call: Option<std::sync::Arc<Call>>,
    owner: Option<Pod>,
}

impl Agent {
    fn new() -> Self {
        let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let config = config::Enrich {
            node_name: Some("node-1".to_owned()),
            cluster_name: Some("test".to_owned()),
            resource_attributes: vec![own("deployment.environment", "lab"), own("service.name", "never")],
            ..config::Enrich::default()
        };
        Self { correlator: Correlator::new(Limits::default()), enricher: Enricher::new(config) }
    }

    /// Calls and requests in the order of their times.
    fn run(&mut self, calls: &[Call], arrivals: &[Arrival]) -> Vec<Seen> {
        let starts = calls.iter().map(|call| (call.started_ns, CallEvent::Started(Box::new(started(call)))));
        let ends = calls.iter().map(|call| (call.ended_ns, CallEvent::Finished(Box::new(call.clone()))));
        let mut events: Vec<(u64, CallEvent)> = starts.chain(ends).collect();
        events.sort_by_key(|(at, _)| *at);
        let mut events = events.into_iter().peekable();
        let mut all = Vec::new();
        for arrival in arrivals {
            while let Some((_, mut event)) = events.next_if(|(at, _)| *at <= arrival.at_unix_nano) {
                self.enricher.call(&mut event);
                self.correlator.observe(&event);
            }
            all.extend(self.pass(arrival).0);
        }
        all
    }

    fn pass(&mut self, arrival: &Arrival) -> (Vec<Seen>, ExportTraceServiceRequest) {
        let mut batch = Batch::new(Source::Grpc, TraceRequest::parse(arrival.bytes.clone()).unwrap());
        assert_eq!(self.correlator.correlate(&mut batch), []);
        self.enricher.batch(&mut batch);
        let encoded = ExportTraceServiceRequest::decode(batch.request.encode(&batch.additions)).unwrap();
        let after =
            encoded.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
        let owners = batch.owners.iter().map(|owner| {
            let pod = &owner.as_ref()?.pod;
            Some((pod.namespace.clone(), pod.name.clone(), pod.uid.clone()))
        });
        let seen = after.zip(owners).zip(&batch.calls).zip(&arrival.spans).map(|(((after, owner), call), json)| {
            assert_eq!(Hex(&after.span_id).to_string(), json.span_id);
            Seen { json: json.clone(), after: after.clone(), call: call.clone(), owner }
        });
        (seen.collect(), encoded)
    }
}

impl Seen {
    /// The pod that the span's attributes name, which must be its owner.
    fn pod(&self) -> Option<Pod> {
        let name = ["k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid"].map(|key| self.attribute(key));
        let pod = match name {
            [Some(namespace), Some(name), Some(uid)] => Some((namespace, name, uid)),
            [None, None, None] => None,
            partial => panic!("{}: {partial:?}", self.json.name),
        };
        assert_eq!(pod, self.owner, "{}", self.json.name);
        pod
    }

    fn attribute(&self, key: &str) -> Option<String> {
        value(&self.after.attributes, key)
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let mut values = attributes.iter().filter(|attribute| attribute.key == key);
    let value = values.next()?.value.clone()?.value?;
    assert!(values.next().is_none(), "{key} twice");
    Some(match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(int) => int.to_string(),
        other => panic!("{other:?}"),
    })
}

// === the expected answers ===

/// Whose each span is and which call is its own, from the recordings as a whole: no order of arrival, no bounds.
struct Expected {
    /// Of the spans that are a pod's.
    pods: HashMap<SpanKey, Pod>,
    /// Values of `traceparent` by the ids in them.
    traceparents: HashMap<SpanKey, String>,
}

impl Expected {
    fn of(arrivals: &[Arrival], calls: &[Call]) -> Self {
        let spans: Vec<&JsonSpan> = arrivals.iter().flat_map(|arrival| &arrival.spans).collect();
        let traceparents: HashMap<SpanKey, String> = calls
            .iter()
            .map(|call| call.traceparent.unwrap())
            .map(|value| ((Hex(&value.trace_id).to_string(), Hex(&value.span_id).to_string()), value.to_string()))
            .collect();
        let by_call = pods_of_calls(calls);
        let traces: HashMap<&str, Pod> = spans
            .iter()
            .filter(|span| span.name.starts_with("sync"))
            .map(|span| (span.trace_id.as_str(), sync_pod(span)))
            .collect();
        let ids = ids_in_traces(&spans, &traces);
        let own = |span: &JsonSpan| {
            let call = span.call_key().and_then(|key| by_call.get(&key));
            let id = ids_of(span).find_map(|id| ids.get(id));
            traces.get(span.trace_id.as_str()).or(call).or(id).cloned()
        };
        let mut pods: HashMap<SpanKey, Pod> = spans.iter().filter_map(|span| Some((span.key(), own(span)?))).collect();
        // A client's span is of the same call as the server's below it.
        for span in spans.iter().filter(|span| span.kind == "SPAN_KIND_SERVER" && span.name.starts_with("runtime.v1")) {
            if let (Some(pod), Some(parent)) = (pods.get(&span.key()).cloned(), &span.parent_id) {
                pods.entry((span.trace_id.clone(), parent.clone())).or_insert(pod);
            }
        }
        // Children are their parent's, however deep.
        for _ in 0..8 {
            for span in &spans {
                let parent =
                    span.parent_id.as_ref().and_then(|id| pods.get(&(span.trace_id.clone(), id.clone()))).cloned();
                if let Some(pod) = parent {
                    pods.entry(span.key()).or_insert(pod);
                }
            }
        }
        pods.retain(|key, _| spans.iter().any(|span| span.key() == *key));
        Self { pods, traceparents }
    }

    fn traceparent(&self, span: &JsonSpan) -> Option<String> {
        self.traceparents.get(&span.call_key()?).cloned()
    }
}

fn sync_pod(span: &JsonSpan) -> Pod {
    let [namespace, name, uid] =
        ["k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid"].map(|key| span.attributes[key].clone());
    (namespace, name, uid)
}

/// The pod of every call that names one, by the ids of its `traceparent`.
fn pods_of_calls(calls: &[Call]) -> HashMap<SpanKey, Pod> {
    let mut ids: HashMap<String, Pod> = HashMap::new();
    let mut pods = HashMap::new();
    for call in calls {
        let pod = match &call.subject {
            Subject::Sandbox { name, uid, namespace, .. } => Some((namespace.clone(), name.clone(), uid.clone())),
            Subject::SandboxId(id) | Subject::ContainerId(id) => ids.get(id).cloned(),
            _ => None,
        };
        let Some(pod) = pod else { continue };
        if let Some(id) = &call.response_id {
            ids.insert(id.clone(), pod.clone());
        }
        let traceparent = call.traceparent.unwrap();
        pods.insert((Hex(&traceparent.trace_id).to_string(), Hex(&traceparent.span_id).to_string()), pod);
    }
    pods
}

/// The pod of every id in the traces of a pod: kubelet does nothing for another pod there.
fn ids_in_traces(spans: &[&JsonSpan], traces: &HashMap<&str, Pod>) -> HashMap<String, Pod> {
    let owned = spans.iter().filter_map(|span| Some((span, traces.get(span.trace_id.as_str())?)));
    owned.flat_map(|(span, pod)| ids_of(span).map(|id| (id.to_owned(), pod.clone())).collect::<Vec<_>>()).collect()
}

/// The sandbox and container ids in a span's attributes and in the log lines among its events.
fn ids_of(span: &JsonSpan) -> impl Iterator<Item = &str> {
    let keys = ["container.id", "sandbox.id", "task.id", "task.container.id"];
    let attributes = keys.into_iter().filter_map(|key| span.attributes.get(key)).map(String::as_str);
    let quoted = span.events.iter().flat_map(|line| line.split('"'));
    let is_id = |text: &&str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    attributes.chain(quoted).filter(is_id)
}
