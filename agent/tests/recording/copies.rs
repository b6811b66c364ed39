//! A recorded run several times over, as if as many pods had lived through it at once: the recordings have one pod each.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;
use spanlet::call::{Call, Subject};

use super::{Arrival, JsonSpan};

/// Between a copy and the next: calls of one are under way while those of the other begin.
const LAG_NS: u64 = 700_000;

/// What tells copies apart: every id of the run, and its pod's name.
#[derive(Clone, Copy)]
pub(crate) struct Copy<'a> {
    pub(crate) number: u8,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_uid: &'a str,
}

impl Copy<'_> {
    fn lag_ns(self) -> u64 {
        u64::from(self.number) * LAG_NS
    }

    /// Other ids for each copy; those of copy 0 are the recorded ones.
    fn id(self, id: &[u8]) -> Vec<u8> {
        let mut id = id.to_vec();
        if let Some(first) = id.first_mut() {
            *first ^= self.number << 5;
        }
        id
    }

    fn array<const N: usize>(self, id: [u8; N]) -> [u8; N] {
        self.id(&id).try_into().unwrap()
    }

    /// The text with its ids (uids, sandboxes, containers, in traces and spans too) and the pod's name as the copy has them.
    fn text(self, text: &str) -> String {
        if self.number == 0 {
            return text.to_owned();
        }
        let mut copied = text.replace(self.pod_name, &format!("{}-{}", self.pod_name, self.number));
        let words: Vec<String> = text.split(|c: char| !c.is_ascii_hexdigit()).map(str::to_owned).collect();
        for word in words.iter().filter(|word| [16, 32, 64].contains(&word.len()) || *word == self.pod_uid) {
            let first = u8::from_str_radix(&word[..2], 16).unwrap() ^ (self.number << 5);
            copied = copied.replace(word.as_str(), &format!("{first:02x}{}", &word[2..]));
        }
        copied
    }

    pub(crate) fn call(self, call: &Call) -> Call {
        let mut copied = call.clone();
        copied.connection += u64::from(self.number) * 2;
        for at in [
            Some(&mut copied.started_ns),
            Some(&mut copied.ended_ns),
            copied.points.request_written_ns.as_mut(),
            copied.points.request_read_ns.as_mut(),
            copied.points.response_started_ns.as_mut(),
            copied.points.response_written_ns.as_mut(),
            copied.points.response_read_ns.as_mut(),
        ]
        .into_iter()
        .flatten()
        {
            *at += self.lag_ns();
        }
        if let Some(traceparent) = &mut copied.traceparent {
            traceparent.trace_id = self.array(traceparent.trace_id);
            traceparent.span_id = self.array(traceparent.span_id);
        }
        copied.response_id = call.response_id.as_deref().map(|id| self.text(id));
        match &mut copied.subject {
            Subject::Sandbox { name, uid, .. } => (*name, *uid) = (self.text(name), self.text(uid)),
            Subject::SandboxId(id) | Subject::ContainerId(id) => *id = self.text(id),
            _ => {}
        }
        copied
    }

    fn json(self, span: &JsonSpan) -> JsonSpan {
        JsonSpan {
            trace_id: self.text(&span.trace_id),
            span_id: self.text(&span.span_id),
            parent_id: span.parent_id.as_deref().map(|id| self.text(id)),
            attributes: span.attributes.iter().map(|(key, value)| (key.clone(), self.text(value))).collect(),
            events: span.events.iter().map(|event| self.text(event)).collect(),
            start_unix_nano: span.start_unix_nano + self.lag_ns(),
            end_unix_nano: span.end_unix_nano + self.lag_ns(),
            ..span.clone()
        }
    }

    fn resource(self, mut resource: ResourceSpans) -> ResourceSpans {
        for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            self.span(span);
        }
        resource
    }

    fn span(self, span: &mut Span) {
        for id in [&mut span.trace_id, &mut span.span_id, &mut span.parent_span_id] {
            *id = self.id(id);
        }
        for link in &mut span.links {
            (link.trace_id, link.span_id) = (self.id(&link.trace_id), self.id(&link.span_id));
        }
        span.start_time_unix_nano += self.lag_ns();
        span.end_time_unix_nano += self.lag_ns();
        self.attributes(&mut span.attributes);
        for event in &mut span.events {
            event.name = self.text(&event.name);
            self.attributes(&mut event.attributes);
        }
    }

    fn attributes(self, attributes: &mut [KeyValue]) {
        let values = attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()?.value.as_mut());
        for value in values {
            if let Value::StringValue(text) = value {
                *text = self.text(text);
            }
        }
    }
}

/// Each request with the same of the other copies in it: kubelet and runtime send the spans of all pods together.
pub(crate) fn together(arrivals: &[Arrival], copies: &[Copy<'_>]) -> Vec<Arrival> {
    let last = copies.last().expect("a copy").lag_ns();
    let merged = arrivals.iter().map(|arrival| {
        let recorded = ExportTraceServiceRequest::decode(arrival.bytes.clone()).unwrap().resource_spans;
        let all = copies.iter().flat_map(|copy| recorded.iter().map(|resource| copy.resource(resource.clone())));
        let resource_spans: Vec<ResourceSpans> = all.collect();
        Arrival {
            at_unix_nano: arrival.at_unix_nano + last,
            resources: resource_spans.len(),
            bytes: ExportTraceServiceRequest { resource_spans }.encode_to_vec().into(),
            spans: copies.iter().flat_map(|copy| arrival.spans.iter().map(|span| copy.json(span))).collect(),
        }
    });
    merged.collect()
}
