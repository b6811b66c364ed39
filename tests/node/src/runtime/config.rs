//! The files that a private containerd reads: its own configuration and the CNI network of its pods.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::image::IMAGE;

/// Where the CRI is served.
pub(super) fn socket_path(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

/// Writes both files under `dir` and returns the path of containerd's.
pub(super) fn write(dir: &Path) -> Result<PathBuf> {
    let cni_dir = dir.join("cni");
    fs::create_dir(&cni_dir).context("make the CNI directory")?;
    fs::write(cni_dir.join("10-spanlet.conflist"), network().to_string()).context("write the CNI configuration")?;
    let path = dir.join("containerd.toml");
    fs::write(&path, containerd(dir, &cni_dir)).context("write containerd's configuration")?;
    Ok(path)
}

/// `overlayfs`, or `native` where the directory is itself on an overlay (a container's root).
pub(super) fn snapshotter(dir: &Path) -> &'static str {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630; // statfs(2)
    let on_overlay = rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == OVERLAYFS_SUPER_MAGIC);
    if on_overlay { "native" } else { "overlayfs" }
}

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE runc dies when it lowers a score. The `opt` plugin writes to `/opt`.
fn containerd(dir: &Path, cni_dir: &Path) -> String {
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{socket}"

[plugins."io.containerd.nri.v1.nri"]
disable = true

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni_dir}"
"#,
        dir = dir.display(),
        socket = socket_path(dir).display(),
        snapshotter = snapshotter(dir),
        cni_dir = cni_dir.display(),
    )
}

/// A bridge without masquerading, so no iptables is needed. Name and subnet clash with nobody's: the network is the runtime's own.
fn network() -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "spanlet",
        "plugins": [{
            "type": "bridge",
            "bridge": "spanlet0",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}
