//! The watch as the agent runs it, and the enricher that it tells.

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use prost::Message as _;
use spanlet::batch::{Batch, Source};
use spanlet::budget::Budget;
use spanlet::config::{Enrich, KubernetesAccess};
use spanlet::enrich::sources::kubernetes::{self, Pace};
use spanlet::enrich::{Enricher, News};
use spanlet::observe::Metrics;
use spanlet_otlp::TraceRequest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::objects::NODE;

/// How long anything here may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// As patient as the tests can be.
pub(crate) const PACE: Pace = Pace {
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(40),
    longest_pause_of_node: Duration::from_millis(40),
    answer_within: Duration::from_secs(5),
    watch_seconds: 290,
    page_pods: 500,
};

pub(crate) struct Agent {
    pub(crate) enricher: Enricher,
    pub(crate) metrics: Metrics,
    news: mpsc::Receiver<News>,
    /// Told so far.
    pub(crate) told: Vec<News>,
    _watch: JoinSet<()>,
}

/// What tells of the node in [`crate::objects`].
pub(crate) fn config(kubeconfig: PathBuf) -> Enrich {
    Enrich {
        node_name: Some(NODE.to_owned()),
        kubernetes: KubernetesAccess::Kubeconfig,
        kubeconfig: Some(kubeconfig),
        labels: vec!["app.kubernetes.io/*".to_owned()],
        node_labels: vec!["topology.kubernetes.io/zone".to_owned()],
        ..Enrich::default()
    }
}

impl Agent {
    pub(crate) fn start(config: Enrich, pace: Pace) -> Self {
        let (sender, news) = mpsc::channel(64);
        let metrics = Metrics::new(Budget::new(1 << 20, 1 << 20));
        let mut watch = JoinSet::new();
        watch.spawn(kubernetes::run(config.clone(), pace, sender, metrics.clone()));
        Self { enricher: Enricher::new(config), metrics, news, told: Vec::new(), _watch: watch }
    }

    /// Takes in what is told until `done` holds.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            assert!(tokio::time::Instant::now() < deadline, "{what} took too long:\n{}", self.metrics.render());
            // What is waited for need not be news: a request, say.
            if let Ok(news) = tokio::time::timeout(Duration::from_millis(10), self.news.recv()).await {
                let news = news.expect("the watch runs");
                self.enricher.news(&news);
                self.told.push(news);
            }
        }
    }

    /// Takes in what is told until a result has been counted as often as `count`.
    pub(crate) async fn until_counted(&mut self, result: &str, count: u64) {
        self.until(result, |agent| agent.counted(result) >= count).await;
        self.until("the rest", |agent| agent.news.is_empty()).await;
    }

    /// Waits for a pod's container to be known.
    pub(crate) async fn until_known(&mut self, pod: &str) {
        let id = crate::objects::container(pod);
        self.until(pod, |agent| agent.enricher.owner_of(&id).is_some()).await;
    }

    pub(crate) fn counted(&self, result: &str) -> u64 {
        let text = self.metrics.render();
        let name = format!("spanlet_kubernetes_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).expect("a known result").parse().unwrap()
    }

    /// What a span of the pod's container is told.
    pub(crate) fn span_of(&mut self, pod: &str) -> Vec<(String, String)> {
        let mut attributes = texts(&self.pass("containerd", vec![task_of(pod)]).1.remove(0).attributes);
        attributes.retain(|(key, _)| key != "task.id");
        attributes
    }

    /// Passes spans of a service; returns the attributes of their resource and the spans as they leave.
    pub(crate) fn pass(&mut self, service: &str, spans: Vec<Span>) -> (Vec<(String, String)>, Vec<Span>) {
        let request = request_of(service, spans).encode_to_vec();
        let mut batch = Batch::new(Source::Grpc, TraceRequest::parse(request.into()).unwrap());
        self.enricher.batch(&mut batch);
        let mut after = ExportTraceServiceRequest::decode(batch.request.encode(&batch.additions)).unwrap();
        let mut after = after.resource_spans.remove(0);
        (texts(&after.resource.unwrap().attributes), after.scope_spans.remove(0).spans)
    }
}

/// Spans of a service, as they come.
pub(crate) fn request_of(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }],
    }
}

/// A span of the runtime's about the pod's container.
pub(crate) fn task_of(pod: &str) -> Span {
    Span {
        name: "task.Delete".to_owned(),
        kind: span::SpanKind::Internal as i32,
        attributes: vec![attribute("task.id", &crate::objects::container(pod))],
        ..new_span(1)
    }
}

pub(crate) fn new_span(number: u8) -> Span {
    Span {
        trace_id: vec![number; 16],
        span_id: vec![number; 8],
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 2_000_000_000,
        ..Span::default()
    }
}

pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// The attributes that are texts.
pub(crate) fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

/// The value of one attribute.
pub(crate) fn value<'a>(attributes: &'a [(String, String)], key: &str) -> Option<&'a str> {
    attributes.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}
