//! Whom a call concerns, by its method and the fields that were copied of its request.

use prost::Message as _;
use spanlet_abi::limits::ID_BYTES;
use spanlet_proto::cri::PodSandboxMetadata;

use crate::call::{Claim, SocketKind, Subject};

/// A field of the request's first message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    pub number: u32,
    /// The bytes are those of field 1 of the nested message.
    pub nested: bool,
    /// There was more of it than was copied.
    pub cut: bool,
    pub bytes: Vec<u8>,
}

/// The subject of a call; `Unknown` if the fields do not say.
pub fn of(kind: SocketKind, method: Option<&str>, fields: &[Field]) -> Subject {
    match kind {
        SocketKind::Cri => of_cri(method, fields).unwrap_or_default(),
        SocketKind::Csi | SocketKind::Dra => of_plugin(method, fields).unwrap_or_default(),
        SocketKind::DevicePlugin => of_device_plugin(method, fields).unwrap_or_default(),
        SocketKind::Registration | SocketKind::PodResources => Subject::Unknown,
    }
}

/// Methods of the CRI whose request's field 1 is a sandbox's id (cri-api `api.proto`).
const OF_SANDBOX: [&str; 7] = [
    "StopPodSandbox",
    "RemovePodSandbox",
    "PodSandboxStatus",
    "PodSandboxStats",
    "PortForward",
    "UpdatePodSandboxResources",
    "CreateContainer",
];

/// Those whose field 1 is a container's id.
const OF_CONTAINER: [&str; 11] = [
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "ContainerStatus",
    "ContainerStats",
    "ExecSync",
    "Exec",
    "Attach",
    "ReopenContainerLog",
    "CheckpointContainer",
    "UpdateContainerResources",
];

const OF_IMAGE: [&str; 3] = ["PullImage", "ImageStatus", "RemoveImage"];

fn of_cri(method: Option<&str>, fields: &[Field]) -> Option<Subject> {
    let field = fields.iter().find(|field| field.number == 1 && !field.cut)?;
    let Some(method) = method else { return of_unnamed(field) };
    let method = method.rsplit('/').next()?;
    if method == "RunPodSandbox" {
        return sandbox(field);
    }
    if OF_IMAGE.contains(&method) {
        return field.nested.then(|| text(&field.bytes)).flatten().map(Subject::Image);
    }
    let id = id(field)?;
    if OF_SANDBOX.contains(&method) {
        Some(Subject::SandboxId(id))
    } else if OF_CONTAINER.contains(&method) {
        Some(Subject::ContainerId(id))
    } else {
        None
    }
}

/// A sandbox's metadata cannot be taken for anything else on a CRI socket; an id can be of two kinds.
fn of_unnamed(field: &Field) -> Option<Subject> {
    match sandbox(field)? {
        Subject::Sandbox { name, uid, namespace, attempt }
            if !name.is_empty() && !uid.is_empty() && !namespace.is_empty() =>
        {
            Some(Subject::Sandbox { name, uid, namespace, attempt })
        }
        _ => None,
    }
}

fn sandbox(field: &Field) -> Option<Subject> {
    if !field.nested {
        return None;
    }
    let PodSandboxMetadata { name, uid, namespace, attempt } =
        PodSandboxMetadata::decode(field.bytes.as_slice()).ok()?;
    Some(Subject::Sandbox { name, uid, namespace, attempt })
}

fn id(field: &Field) -> Option<String> {
    if field.nested || !is_digits(field) {
        return None;
    }
    text(&field.bytes)
}

/// Whether all of the field is as an id is written.
pub fn is_digits(field: &Field) -> bool {
    !field.cut && field.bytes.len() == ID_BYTES && field.bytes.iter().all(u8::is_ascii_hexdigit)
}

/// The first device: `AllocateRequest.container_requests[0].devices_ids[0]` or `PreStartContainerRequest.devices_ids[0]`. A
/// preferred allocation only lists what there is to choose from.
fn of_device_plugin(method: Option<&str>, fields: &[Field]) -> Option<Subject> {
    let is_nested = match method?.strip_prefix("v1beta1.DevicePlugin/")? {
        "Allocate" => true,
        "PreStartContainer" => false,
        _ => return None,
    };
    let field = fields.iter().find(|field| field.number == 1 && !field.cut && field.nested == is_nested)?;
    text(&field.bytes).map(Subject::Device)
}

/// A CSI request names a volume and paths, a DRA request claims: both come over sockets in the same folders.
fn of_plugin(method: Option<&str>, fields: &[Field]) -> Option<Subject> {
    if method.is_some_and(|method| method.contains("dra.") && method.contains("DRAPlugin/")) {
        return Some(Subject::Claims(claims(fields)));
    }
    let whole = |field: &&Field| !field.cut && !field.nested;
    let volume = fields.iter().filter(whole).find(|field| field.number == 1 && field.bytes.first() != Some(&b'/'));
    let paths: Vec<String> =
        fields.iter().filter(whole).filter(|f| f.bytes.first() == Some(&b'/')).filter_map(|f| text(&f.bytes)).collect();
    let id = volume.and_then(|field| text(&field.bytes)).unwrap_or_default();
    (!id.is_empty() || !paths.is_empty()).then_some(Subject::Volume { id, paths })
}

/// A claim's fields come in the order namespace, uid, name; the next claim begins with one that is not later.
fn claims(fields: &[Field]) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    let mut last = u32::MAX;
    for field in fields {
        if field.cut {
            last = u32::MAX; // what comes behind a part that is missing may be of another claim
            continue;
        }
        let Some(value) = text(&field.bytes) else { continue };
        if field.number <= last {
            claims.push(Claim::default());
        }
        last = field.number;
        if let Some(claim) = claims.last_mut() {
            match field.number {
                1 => claim.namespace = value,
                2 => claim.uid = value,
                3 => claim.name = value,
                _ => {}
            }
        }
    }
    claims
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u32, bytes: &[u8]) -> Field {
        Field { number, bytes: bytes.to_vec(), ..Field::default() }
    }

    const ID: &str = "819de2e05fa7c8bb6f5d2c5ff5b4ff0bd2e90a6ca2f5c1d7a3f1e4b5c6d7e8f9";

    #[test]
    fn cri_subjects_follow_the_method() {
        let metadata = Field { nested: true, ..field(1, b"\x0a\x03web\x12\x02u1\x1a\x07default") };
        let sandbox =
            Subject::Sandbox { name: "web".into(), uid: "u1".into(), namespace: "default".into(), attempt: 0 };
        let cases = [
            (Some("runtime.v1.RuntimeService/RunPodSandbox"), metadata.clone(), sandbox.clone()),
            (None, metadata, sandbox),
            (Some("runtime.v1.RuntimeService/StopPodSandbox"), field(1, ID.as_bytes()), Subject::SandboxId(ID.into())),
            (Some("runtime.v1.RuntimeService/ExecSync"), field(1, ID.as_bytes()), Subject::ContainerId(ID.into())),
            (Some("runtime.v1.RuntimeService/Version"), field(1, b"0.1.0"), Subject::Unknown),
            (None, field(1, ID.as_bytes()), Subject::Unknown),
            (
                Some("runtime.v1.ImageService/PullImage"),
                Field { nested: true, ..field(1, b"docker.io/library/busybox") },
                Subject::Image("docker.io/library/busybox".into()),
            ),
        ];
        for (method, field, expected) in cases {
            assert_eq!(of(SocketKind::Cri, method, &[field]), expected, "{method:?}");
        }
    }

    #[test]
    fn a_cut_field_says_nothing() {
        let cut = Field { cut: true, ..field(1, ID.as_bytes()) };
        assert_eq!(of(SocketKind::Cri, Some("runtime.v1.RuntimeService/ExecSync"), &[cut]), Subject::Unknown);
    }

    #[test]
    fn a_device_plugins_subject_is_the_first_device_given() {
        let nested = Field { nested: true, ..field(1, b"GPU-8f") };
        let device = || Subject::Device("GPU-8f".into());
        for (method, field, expected) in [
            ("v1beta1.DevicePlugin/Allocate", nested.clone(), device()),
            ("v1beta1.DevicePlugin/PreStartContainer", field(1, b"GPU-8f"), device()),
            ("v1beta1.DevicePlugin/GetPreferredAllocation", nested.clone(), Subject::Unknown),
            ("v1beta1.Registration/Register", field(1, b"v1beta1"), Subject::Unknown),
            ("v1beta1.DevicePlugin/Allocate", Field { cut: true, ..nested }, Subject::Unknown),
        ] {
            assert_eq!(of(SocketKind::DevicePlugin, Some(method), &[field]), expected, "{method}");
        }
    }

    #[test]
    fn plugin_subjects_are_volumes_or_claims() {
        let publish =
            [field(1, b"vol-1"), field(3, b"/staging"), field(4, b"/var/lib/kubelet/pods/u1/volumes/x/mount")];
        assert_eq!(
            of(SocketKind::Csi, Some("csi.v1.Node/NodePublishVolume"), &publish),
            Subject::Volume {
                id: "vol-1".into(),
                paths: vec!["/staging".into(), "/var/lib/kubelet/pods/u1/volumes/x/mount".into()]
            }
        );
        let prepare =
            [field(1, b"ns"), field(2, b"u1"), field(3, b"c1"), field(1, b"ns"), field(2, b"u2"), field(3, b"c2")];
        let claim = |uid: &str, name: &str| Claim { namespace: "ns".into(), uid: uid.into(), name: name.into() };
        assert_eq!(
            of(SocketKind::Csi, Some("k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources"), &prepare),
            Subject::Claims(vec![claim("u1", "c1"), claim("u2", "c2")])
        );
    }
}
