//! What a call means for a pod's life.

use crate::call::SocketKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    RunSandbox,
    PullImage,
    CreateContainer,
    StartContainer,
    /// Volumes, claims and devices made ready for the pod.
    Prepare,
    StopContainer,
    StopSandbox,
    RemoveSandbox,
    /// Everything else that takes something of the pod away.
    TearDown,
    /// Status, lists, statistics, probes: changes nothing.
    Inspect,
}

impl Step {
    /// `method` as `package.Service/Method`.
    pub(super) fn of(kind: SocketKind, method: Option<&str>) -> Self {
        let verb = method.map_or("", verb);
        match kind {
            SocketKind::Cri => match verb {
                "RunPodSandbox" => Self::RunSandbox,
                "PullImage" => Self::PullImage,
                "CreateContainer" => Self::CreateContainer,
                "StartContainer" => Self::StartContainer,
                "StopContainer" => Self::StopContainer,
                "StopPodSandbox" => Self::StopSandbox,
                "RemovePodSandbox" => Self::RemoveSandbox,
                "RemoveContainer" => Self::TearDown,
                _ => Self::Inspect,
            },
            SocketKind::Csi | SocketKind::Dra | SocketKind::DevicePlugin => match verb {
                "NodeStageVolume" | "NodePublishVolume" | "NodePrepareResources" | "Allocate" | "PreStartContainer" => {
                    Self::Prepare
                }
                "NodeUnpublishVolume" | "NodeUnstageVolume" | "NodeUnprepareResources" => Self::TearDown,
                _ => Self::Inspect,
            },
            SocketKind::Registration | SocketKind::PodResources => Self::Inspect,
        }
    }

    /// Belongs to bringing a pod up.
    pub(super) const fn starts(self) -> bool {
        matches!(
            self,
            Self::RunSandbox | Self::PullImage | Self::CreateContainer | Self::StartContainer | Self::Prepare
        )
    }
}

/// `RunPodSandbox` of `runtime.v1.RuntimeService/RunPodSandbox`.
pub(super) fn verb(method: &str) -> &str {
    method.rsplit('/').next().unwrap_or(method)
}
