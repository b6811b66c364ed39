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
