//! A stand-in kubelet: runs pods through the real CRI, with the calls, `traceparent`s and OTLP spans of kubelet 1.34.

mod calls;
pub mod cri;
mod pod;
mod trace;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper_util::rt::TokioIo;
use opentelemetry::Context;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use calls::{CriCall, Service};
pub use pod::{ContainerSpec, PodSpec};
pub use trace::Tracing;

/// kubelet's `runtimeRequestTimeout`, which becomes `grpc-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Seconds that a container gets to end by itself; short, because tests wait for it.
const STOP_GRACE_SECONDS: i64 = 5;

/// Two connections to one runtime, as kubelet has them.
#[derive(Debug)]
pub struct Kubelet {
    runtime: Channel,
    images: Channel,
    tracing: Tracing,
    cgroup_parent: String,
}

/// A started pod.
#[derive(Debug, Clone)]
pub struct RunningPod {
    pub spec: PodSpec,
    pub sandbox_id: String,
    pub container_id: String,
    /// The pod's address in the runtime's network.
    pub address: String,
}

impl Kubelet {
    /// Connects both services. Pods are put below `cgroup_parent`.
    pub async fn connect(socket: &Path, cgroup_parent: &str, tracing: Tracing) -> Result<Self> {
        let runtime = connect(socket).await?;
        let images = connect(socket).await?;
        let kubelet = Self { runtime, images, tracing, cgroup_parent: cgroup_parent.to_owned() };
        kubelet.call(&Context::new(), cri::VersionRequest { version: "0.1.0".to_owned() }).await?;
        kubelet.wait_until_ready().await?;
        Ok(kubelet)
    }

    /// `syncPod` of a new pod: sandbox, image, container, start.
    pub async fn start_pod(&self, spec: &PodSpec) -> Result<RunningPod> {
        let sync = self.tracing.sync_pod("syncPod", spec, Some("create"));
        let result = self.create_and_start(&sync, spec).await;
        self.tracing.end_sync(&sync, result.as_ref().err());
        result
    }

    /// What PLEG asks once a second, each call a trace of its own.
    pub async fn relist(&self) -> Result<(Vec<cri::PodSandbox>, Vec<cri::Container>)> {
        let sandboxes = self.call(&Context::new(), cri::ListPodSandboxRequest {}).await?.items;
        let containers = self.call(&Context::new(), cri::ListContainersRequest {}).await?.containers;
        Ok((sandboxes, containers))
    }

    /// Runs a command in the pod's container and returns its standard output, as an exec probe does.
    pub async fn exec_sync(&self, pod: &RunningPod, command: &[&str]) -> Result<String> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = cri::ExecSyncRequest { container_id: pod.container_id.clone(), cmd, timeout: 10 };
        let response = self.call(&Context::new(), request).await?;
        ensure!(response.exit_code == 0, "exec {command:?}: {}", String::from_utf8_lossy(&response.stderr));
        Ok(String::from_utf8_lossy(&response.stdout).into_owned())
    }

    /// The streaming address that `kubectl exec` would be sent to.
    pub async fn exec_url(&self, pod: &RunningPod, command: &[&str]) -> Result<String> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let container_id = pod.container_id.clone();
        let request = cri::ExecRequest { container_id, cmd, tty: false, stdin: false, stdout: true, stderr: true };
        Ok(self.call(&Context::new(), request).await?.url)
    }

    /// Pulls an image for a pod with credentials.
    ///
    /// # Errors
    /// The runtime's, as a gRPC status: without a registry every pull fails.
    pub async fn pull_image(&self, image: &str, auth: cri::AuthConfig, spec: &PodSpec) -> Result<String> {
        let request = cri::PullImageRequest {
            image: Some(cri::ImageSpec { image: image.to_owned(), annotations: spec.annotations.clone() }),
            auth: Some(auth),
            sandbox_config: Some(spec.sandbox_config(&self.cgroup_parent)),
        };
        Ok(self.call(&Context::new(), request).await?.image_ref)
    }

    /// `syncTerminatingPod`, then the removal that garbage collection does later.
    pub async fn stop_pod(&self, pod: &RunningPod) -> Result<()> {
        let sync = self.tracing.sync_pod("syncTerminatingPod", &pod.spec, None);
        let result = self.terminate(&sync, pod).await;
        self.tracing.end_sync(&sync, result.as_ref().err());
        result?;
        self.call(&Context::new(), cri::RemoveContainerRequest { container_id: pod.container_id.clone() }).await?;
        self.call(&Context::new(), cri::RemovePodSandboxRequest { pod_sandbox_id: pod.sandbox_id.clone() }).await?;
        Ok(())
    }

    /// Exports the spans that wait in the SDK's batch.
    pub fn flush_spans(&self) -> Result<()> {
        self.tracing.flush()
    }

    async fn create_and_start(&self, sync: &Context, spec: &PodSpec) -> Result<RunningPod> {
        let config = spec.sandbox_config(&self.cgroup_parent);
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let pod_sandbox_id = self.call(sync, request).await?.pod_sandbox_id;
        let status = cri::PodSandboxStatusRequest { pod_sandbox_id: pod_sandbox_id.clone(), verbose: false };
        let status = self.call(sync, status).await?.status.context("the runtime gave no sandbox status")?;
        for _ in 0..2 {
            let image = Some(cri::ImageSpec { image: spec.container.image.clone(), ..Default::default() });
            let answer = self.call(sync, cri::ImageStatusRequest { image, verbose: false }).await?;
            ensure!(answer.image.is_some(), "the runtime does not have {}", spec.container.image);
        }
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
            config: Some(spec.container_config()),
            sandbox_config: Some(config),
        };
        let container_id = self.call(sync, request).await?.container_id;
        self.call(sync, cri::StartContainerRequest { container_id: container_id.clone() }).await?;
        let address = status.network.map(|network| network.ip).unwrap_or_default();
        Ok(RunningPod { spec: spec.clone(), sandbox_id: pod_sandbox_id, container_id, address })
    }

    async fn terminate(&self, sync: &Context, pod: &RunningPod) -> Result<()> {
        let container_id = pod.container_id.clone();
        self.call(sync, cri::StopContainerRequest { container_id, timeout: STOP_GRACE_SECONDS }).await?;
        self.call(sync, cri::StopPodSandboxRequest { pod_sandbox_id: pod.sandbox_id.clone() }).await?;
        Ok(())
    }

    /// The CNI configuration is loaded shortly after the socket opens.
    async fn wait_until_ready(&self) -> Result<()> {
        let ready = async {
            loop {
                let status = self.call(&Context::new(), cri::StatusRequest { verbose: false }).await?;
                let conditions = status.status.unwrap_or_default().conditions;
                if !conditions.is_empty() && conditions.iter().all(|condition| condition.status) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.context("the runtime does not become ready")?
    }

    /// One call with its client span, `traceparent` and deadline.
    async fn call<C: CriCall>(&self, parent: &Context, request: C) -> Result<C::Response> {
        let channel = match C::SERVICE {
            Service::Runtime => self.runtime.clone(),
            Service::Image => self.images.clone(),
        };
        let span = self.tracing.client_span(parent, C::SERVICE.name(), C::METHOD);
        let mut request = tonic::Request::new(request);
        request.set_timeout(REQUEST_TIMEOUT);
        self.tracing.inject(&span, request.metadata_mut());
        let result = calls::unary(channel, request).await;
        self.tracing.end_call(&span, result.as_ref().err());
        result.with_context(|| format!("{}/{}", C::SERVICE.name(), C::METHOD))
    }
}

async fn connect(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connect to {}", socket.display()))
}
