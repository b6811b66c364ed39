//! Which request is answered by which response, and the one function that sends them all.

use prost::Message;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::cri;

/// The CRI's two services; kubelet has a connection for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Runtime,
    Image,
}

/// A request of the CRI.
pub(super) trait CriCall: Message + Send + Sync + 'static {
    type Response: Message + Default + Send + Sync + 'static;
    const SERVICE: Service;
    const METHOD: &'static str;
    const PATH: &'static str;
}

pub(super) async fn unary<C: CriCall>(
    channel: Channel,
    request: tonic::Request<C>,
) -> Result<C::Response, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(C::PATH);
    let codec = ProstCodec::<C, C::Response>::default();
    Ok(client.unary(request, path, codec).await?.into_inner())
}

impl Service {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime.v1.RuntimeService",
            Self::Image => "runtime.v1.ImageService",
        }
    }
}

macro_rules! calls {
    ($($service:ident $name:literal $method:literal: $request:ident -> $response:ident;)*) => {$(
        impl CriCall for cri::$request {
            type Response = cri::$response;
            const SERVICE: Service = Service::$service;
            const METHOD: &'static str = $method;
            const PATH: &'static str = concat!("/runtime.v1.", $name, "/", $method);
        }
    )*};
}

calls! {
    Runtime "RuntimeService" "Version": VersionRequest -> VersionResponse;
    Runtime "RuntimeService" "Status": StatusRequest -> StatusResponse;
    Runtime "RuntimeService" "RunPodSandbox": RunPodSandboxRequest -> RunPodSandboxResponse;
    Runtime "RuntimeService" "StopPodSandbox": StopPodSandboxRequest -> StopPodSandboxResponse;
    Runtime "RuntimeService" "RemovePodSandbox": RemovePodSandboxRequest -> RemovePodSandboxResponse;
    Runtime "RuntimeService" "PodSandboxStatus": PodSandboxStatusRequest -> PodSandboxStatusResponse;
    Runtime "RuntimeService" "ListPodSandbox": ListPodSandboxRequest -> ListPodSandboxResponse;
    Runtime "RuntimeService" "CreateContainer": CreateContainerRequest -> CreateContainerResponse;
    Runtime "RuntimeService" "StartContainer": StartContainerRequest -> StartContainerResponse;
    Runtime "RuntimeService" "StopContainer": StopContainerRequest -> StopContainerResponse;
    Runtime "RuntimeService" "RemoveContainer": RemoveContainerRequest -> RemoveContainerResponse;
    Runtime "RuntimeService" "ListContainers": ListContainersRequest -> ListContainersResponse;
    Runtime "RuntimeService" "ContainerStatus": ContainerStatusRequest -> ContainerStatusResponse;
    Runtime "RuntimeService" "ExecSync": ExecSyncRequest -> ExecSyncResponse;
    Runtime "RuntimeService" "Exec": ExecRequest -> ExecResponse;
    Image "ImageService" "ImageStatus": ImageStatusRequest -> ImageStatusResponse;
    Image "ImageService" "PullImage": PullImageRequest -> PullImageResponse;
}
