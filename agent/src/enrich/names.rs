//! Names that hold identity: the runtime's names for sandboxes and containers, volume paths, shim services, CRI methods.

use super::source::PodName;

/// Takes containerd's sandbox name `pod_namespace_uid_attempt` apart. Neither part can contain `_`.
pub(super) fn sandbox_name(text: &str) -> Option<PodName<'_>> {
    let mut parts = text.split('_');
    let pod = pod_name(&mut parts)?;
    ends_with_attempt(parts).then_some(pod)
}

/// Takes containerd's container name `container_pod_namespace_uid_attempt` apart.
pub(super) fn container_name(text: &str) -> Option<(&str, PodName<'_>)> {
    let mut parts = text.split('_');
    let container = parts.next().filter(|name| !name.is_empty())?;
    let pod = pod_name(&mut parts)?;
    ends_with_attempt(parts).then_some((container, pod))
}

fn pod_name<'a>(parts: &mut std::str::Split<'a, char>) -> Option<PodName<'a>> {
    let (name, namespace, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let complete = !name.is_empty() && !namespace.is_empty() && !uid.is_empty();
    complete.then_some(PodName { namespace, name, uid })
}

fn ends_with_attempt(mut parts: std::str::Split<'_, char>) -> bool {
    parts.next().is_some_and(|attempt| attempt.parse::<u32>().is_ok()) && parts.next().is_none()
}

/// The pod's uid in a path that kubelet hands to a CSI driver: `…/pods/<uid>/volumes/…` for a mounted volume,
/// `…/volumeDevices/publish/<volume>/<uid>` for a block device. Staging paths name no pod.
pub(super) fn uid_in_volume_path(path: &str) -> Option<&str> {
    if let Some((_, rest)) = path.split_once("/pods/") {
        let (uid, rest) = rest.split_once('/')?;
        let is_volume = rest.starts_with("volumes/") || rest.starts_with("volumeDevices/");
        return (is_volume && is_uid(uid)).then_some(uid);
    }
    let (_, rest) = path.split_once("/volumeDevices/publish/")?;
    let (_volume, uid) = rest.split_once('/')?;
    is_uid(uid).then_some(uid)
}

/// A uid as the API makes it, or the hash that kubelet uses for a static pod.
fn is_uid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The sandbox's id in the service name of a containerd 2.x shim, `containerd-shim-<id>`.
pub(super) fn shim_sandbox(service: &str) -> Option<&str> {
    service.strip_prefix("containerd-shim-").filter(|id| is_id(id))
}

/// Whether the text has the shape of the runtimes' ids: 64 lower-case hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a CRI method says about whose the calls around it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Only kubelet's `syncPod` makes it, so the whole trace is one pod's.
    Creates,
    /// Ends something of a pod: `syncTerminatingPod` starts with it, garbage collection only comes to it after listing.
    Stops,
    /// Concerns one sandbox or container, in any kind of trace.
    Concerns,
    /// Belongs to the node, not to a pod: lists, images, versions.
    Node,
}

impl Role {
    /// The role of `runtime.v1.RuntimeService/<method>` or any other span or method name; `None` for what is no CRI call.
    pub(super) fn of(name: &str) -> Option<Self> {
        let method = name.strip_prefix("runtime.v1.")?;
        Some(match method.strip_prefix("RuntimeService/") {
            Some("RunPodSandbox" | "CreateContainer" | "StartContainer") => Self::Creates,
            Some("StopPodSandbox" | "StopContainer") => Self::Stops,
            Some("Version" | "Status" | "RuntimeConfig" | "UpdateRuntimeConfig" | "GetContainerEvents") => Self::Node,
            Some(method) if method.starts_with("List") || method.starts_with("Stream") => Self::Node,
            Some(_) => Self::Concerns,
            None => Self::Node,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "05c2e252-d864-4cd4-88e7-916f42e4ce5f";

    #[test]
    fn containerds_names_are_taken_apart() {
        let pod = PodName { namespace: "default", name: "web-0", uid: UID };
        for (text, expected) in [
            ("web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_0", Some(pod)),
            ("web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_12", Some(pod)),
            ("web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f", None),
            ("web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_x", None),
            ("app_web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_0", None),
            ("_default_u_0", None),
            ("", None),
        ] {
            assert_eq!(sandbox_name(text), expected, "{text}");
        }
        for (text, expected) in [
            ("app_web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_0", Some(("app", pod))),
            ("_web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_0", None),
            ("web-0_default_05c2e252-d864-4cd4-88e7-916f42e4ce5f_0", None),
            ("a_b_c_d_e_f", None),
        ] {
            assert_eq!(container_name(text), expected, "{text}");
        }
    }

    #[test]
    fn volume_paths_hold_the_pods_uid() {
        let kubelet = "/var/lib/kubelet";
        for (path, expected) in [
            (format!("{kubelet}/pods/{UID}/volumes/kubernetes.io~csi/pvc-1/mount"), Some(UID)),
            (format!("/mnt/k/pods/{UID}/volumeDevices/kubernetes.io~csi/pvc-1"), Some(UID)),
            (format!("{kubelet}/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/{UID}"), Some(UID)),
            (format!("{kubelet}/plugins/kubernetes.io/csi/drv/0123/globalmount"), None),
            (format!("{kubelet}/plugins/kubernetes.io/csi/volumeDevices/staging/pvc-1"), None),
            (format!("{kubelet}/pods/{UID}/etc-hosts"), None),
            (format!("{kubelet}/pods/../volumes/x"), None),
        ] {
            assert_eq!(uid_in_volume_path(&path), expected, "{path}");
        }
    }

    #[test]
    fn a_shims_service_is_named_after_its_sandbox() {
        let id = "8".repeat(64);
        assert_eq!(shim_sandbox(&format!("containerd-shim-{id}")), Some(id.as_str()));
        assert_eq!(shim_sandbox("containerd-shim-runc-v2"), None);
        assert_eq!(shim_sandbox("containerd"), None);
    }

    #[test]
    fn methods_that_belong_to_no_pod_are_known() {
        for (method, expected) in [
            ("runtime.v1.RuntimeService/RunPodSandbox", Some(Role::Creates)),
            ("runtime.v1.RuntimeService/StopContainer", Some(Role::Stops)),
            ("runtime.v1.RuntimeService/RemoveContainer", Some(Role::Concerns)),
            ("runtime.v1.RuntimeService/PodSandboxStatus", Some(Role::Concerns)),
            ("runtime.v1.RuntimeService/ListContainers", Some(Role::Node)),
            ("runtime.v1.RuntimeService/ListPodSandboxStats", Some(Role::Node)),
            ("runtime.v1.RuntimeService/StreamContainers", Some(Role::Node)),
            ("runtime.v1.RuntimeService/Status", Some(Role::Node)),
            ("runtime.v1.ImageService/ImageStatus", Some(Role::Node)),
            ("runtime.v1.ImageService/PullImage", Some(Role::Node)),
            ("containerd.task.v3.Task/Start", None),
            ("syncPod", None),
        ] {
            assert_eq!(Role::of(method), expected, "{method}");
        }
    }
}
