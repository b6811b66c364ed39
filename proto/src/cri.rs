//! The container runtime interface, package `runtime.v1` (cri-api `api.proto`).

/// Who a sandbox is for: `PodSandboxConfig.metadata`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandboxMetadata {
    /// Pod name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Pod uid; of a static pod the hash of its manifest, without dashes.
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How often kubelet has made a sandbox for this pod before.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// `RunPodSandboxRequest.config`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub config: Option<PodSandboxConfig>,
}

/// All sandboxes: without a filter, those that have ended too.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
}

/// All containers, those that have ended too.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListContainersRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerMetadata {
    /// `spec.containers[].name`.
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<ContainerMetadata>,
    /// kubelet's `io.kubernetes.pod.name`, `.namespace` and `.uid` say whose it is.
    #[prost(map = "string, string", tag = "12")]
    pub labels: std::collections::HashMap<String, String>,
}

/// Any request or response whose field 1 is a sandbox's, container's or volume's id.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IdMessage {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// The first bytes of a RunPodSandbox request as kubelet 1.34 writes it, cut after the metadata; an unknown field follows.
    #[test]
    fn sandbox_metadata_is_read_and_unknown_fields_are_skipped() {
        let metadata = [b"\x0a\x03web\x12\x02u1\x1a\x07default\x20\x01".as_slice(), b"\x7a\x01x"].concat();
        let config = [&[0x0a, metadata.len() as u8], metadata.as_slice(), b"\x12\x04host"].concat();
        let request = [&[0x0a, config.len() as u8], config.as_slice(), b"\x12\x04runc"].concat();
        let decoded = RunPodSandboxRequest::decode(request.as_slice()).unwrap().config.unwrap().metadata.unwrap();
        assert_eq!(
            decoded,
            PodSandboxMetadata { name: "web".into(), uid: "u1".into(), namespace: "default".into(), attempt: 1 }
        );
    }

    #[test]
    fn an_id_is_field_1_of_its_message() {
        assert_eq!(IdMessage::decode(b"\x0a\x03abc\x10\x01".as_slice()).unwrap().id, "abc");
    }
}
