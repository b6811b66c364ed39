//! kubelet's tracing as its SDK does it: names, attributes and scopes of kubelet 1.34, exported as OTLP over gRPC.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::propagation::{Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tonic::metadata::{MetadataKey, MetadataMap};

use super::pod::PodSpec;

const KUBELET_SCOPE: &str = "k8s.io/kubernetes/pkg/kubelet";
const OTELGRPC_SCOPE: &str = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc";

/// The tracer provider and its two tracers.
#[derive(Debug)]
pub struct Tracing {
    provider: SdkTracerProvider,
    kubelet: SdkTracer,
    otelgrpc: SdkTracer,
}

impl Tracing {
    /// Exports to an OTLP/gRPC endpoint such as `http://127.0.0.1:4317`; without one, spans end nowhere, and calls still carry
    /// a `traceparent`.
    ///
    /// # Errors
    /// When the endpoint is no address.
    pub fn new(endpoint: Option<&str>, node_name: &str) -> Result<Self> {
        let service = [KeyValue::new("service.name", "kubelet"), KeyValue::new("host.name", node_name.to_owned())];
        let mut builder =
            SdkTracerProvider::builder().with_resource(Resource::builder_empty().with_attributes(service).build());
        if let Some(endpoint) = endpoint {
            let exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(Duration::from_secs(10))
                .build()
                .context("make the OTLP exporter")?;
            builder = builder.with_batch_exporter(exporter);
        }
        let provider = builder.build();
        let kubelet = provider.tracer(KUBELET_SCOPE);
        let scope = InstrumentationScope::builder(OTELGRPC_SCOPE).with_version("0.60.0").build();
        let otelgrpc = provider.tracer_with_scope(scope);
        Ok(Self { provider, kubelet, otelgrpc })
    }

    /// A root span of a pod worker: `syncPod`, `syncTerminatingPod`.
    pub(super) fn sync_pod(&self, name: &'static str, pod: &PodSpec, update_type: Option<&'static str>) -> Context {
        let mut attributes = vec![
            KeyValue::new("k8s.pod.uid", pod.uid.clone()),
            KeyValue::new("k8s.pod", format!("{}/{}", pod.namespace, pod.name)),
            KeyValue::new("k8s.pod.name", pod.name.clone()),
            KeyValue::new("k8s.namespace.name", pod.namespace.clone()),
        ];
        attributes.extend(update_type.map(|kind| KeyValue::new("k8s.pod.update_type", kind)));
        start(&self.kubelet, name, SpanKind::Internal, attributes, &Context::new())
    }

    pub(super) fn end_sync(&self, sync: &Context, error: Option<&anyhow::Error>) {
        if let Some(error) = error {
            sync.span().set_status(Status::error(format!("{error:#}")));
        }
        sync.span().end();
    }

    /// otelgrpc's client span of one call.
    pub(super) fn client_span(&self, parent: &Context, service: &'static str, method: &'static str) -> Context {
        let attributes = vec![
            KeyValue::new("rpc.service", service),
            KeyValue::new("rpc.method", method),
            KeyValue::new("rpc.system", "grpc"),
        ];
        let span = start(&self.otelgrpc, format!("{service}/{method}"), SpanKind::Client, attributes, parent);
        message_event(&span, "SENT");
        span
    }

    pub(super) fn end_call(&self, call: &Context, error: Option<&tonic::Status>) {
        let span = call.span();
        let code = error.map_or(0, |status| status.code() as i64);
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", code));
        match error {
            Some(status) => span.set_status(Status::error(status.message().to_owned())),
            None => message_event(call, "RECEIVED"),
        }
        span.end();
    }

    /// Puts the span's `traceparent` into a call's metadata.
    pub(super) fn inject(&self, call: &Context, metadata: &mut MetadataMap) {
        TraceContextPropagator::new().inject_context(call, &mut Metadata(metadata));
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.provider.force_flush().context("export kubelet's spans")
    }
}

impl Drop for Tracing {
    /// As kubelet does: what waits in the batch is lost, whoever wants it flushes.
    fn drop(&mut self) {
        let _ = self.provider.shutdown_with_timeout(Duration::ZERO);
    }
}

fn start(
    tracer: &SdkTracer,
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    parent: &Context,
) -> Context {
    let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
    parent.with_span(tracer.build_with_context(builder, parent))
}

fn message_event(call: &Context, kind: &'static str) {
    call.span().add_event("message", vec![KeyValue::new("message.type", kind), KeyValue::new("message.id", 1)]);
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}
