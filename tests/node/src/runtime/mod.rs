//! A real containerd for the length of a test: its own root, state, socket and network, gone without a trace afterwards.
//!
//! The daemon runs in mount, network and pid namespaces of its own. What it mounts, the bridge that its CNI plugin makes
//! and every shim and container it starts therefore vanish with the first process of that pid namespace, a shell that
//! ends when the owner's end of a pipe closes: on success, on failure, on Ctrl-C, and when the owner is killed.

mod cgroup;
mod config;
mod image;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

pub use image::IMAGE;

/// What the demo and the tests need on the machine: program, Debian package.
const PROGRAMS: [(&str, &str); 7] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/bin/ctr", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/sbin/ip", "iproute2"),
];

/// containerd is up in 0.2 s on a quiet machine, in a few seconds on a busy one.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// First process of the namespaces. `/run` and `/var/lib` are hidden because shims and CNI keep files at fixed paths there.
const INIT: &str = r#"
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
containerd --config "$1" >"$2" 2>&1 &
cat >/dev/null
"#;

/// A running containerd. Dropping it ends and removes everything that it made.
#[derive(Debug)]
pub struct Runtime {
    init: Child,
    dir: TempDir,
    /// Parent of every pod's cgroup, e.g. `/spanlet-Xy12`.
    cgroup_parent: String,
}

impl Runtime {
    /// Starts containerd and gives it [`IMAGE`], made on the spot.
    ///
    /// # Errors
    /// When a program is missing (each is named with its Debian package), or containerd does not come up: its log is shown.
    pub fn start() -> Result<Self> {
        Self::start_with_environment(&[])
    }

    /// The same with more variables in containerd's environment, which it hands on to what it starts.
    ///
    /// # Errors
    /// As for [`Runtime::start`].
    pub fn start_with_environment(variables: &[(&str, &str)]) -> Result<Self> {
        if let Some(reason) = Self::unavailable() {
            bail!("{reason}");
        }
        let dir = tempfile::Builder::new().prefix("spanlet-").tempdir().context("make a directory for containerd")?;
        let cgroup_parent = format!("/{}", dir.path().file_name().expect("a temporary directory has a name").display());
        let config_path = config::write(dir.path())?;
        let init = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "slave",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "--",
            ])
            .args(["sh", "-c", INIT, "sh"])
            .arg(&config_path)
            .arg(log_path(dir.path()))
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .process_group(0) // a Ctrl-C at the terminal is the owner's to handle
            .spawn()
            .context("start containerd in its own namespaces (needs root)")?;
        let mut runtime = Self { init, dir, cgroup_parent };
        runtime.wait_for_socket()?;
        runtime.import_image()?;
        Ok(runtime)
    }

    /// Why no runtime can be started on this machine, if so.
    pub fn unavailable() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("a container runtime needs root".to_owned());
        }
        let missing = || PROGRAMS.iter().filter(|(path, _)| !Path::new(path).exists());
        let paths: Vec<_> = missing().map(|(path, _)| *path).collect();
        let packages: BTreeSet<_> = missing().map(|(_, package)| *package).collect();
        let packages: Vec<_> = packages.into_iter().collect();
        (!paths.is_empty()).then(|| {
            let (paths, packages) = (paths.join(", "), packages.join(" "));
            format!("missing {paths}; on Debian or Ubuntu: apt-get install --no-install-recommends {packages}")
        })
    }

    /// Path of the CRI socket.
    pub fn socket(&self) -> PathBuf {
        config::socket_path(self.dir.path())
    }

    /// The cgroup under which pods are to be put, so that it can be removed with the runtime.
    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// What containerd has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.dir.path())).unwrap_or_default()
    }

    fn wait_for_socket(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.init.try_wait()? {
                bail!("containerd ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("containerd did not open {} in {START_TIMEOUT:?}:\n{}", self.socket().display(), self.log());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn import_image(&self) -> Result<()> {
        let archive = self.dir.path().join("image.tar");
        image::write_archive(File::create(&archive)?, Path::new("/usr/bin/busybox"))?;
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", config::snapshotter(self.dir.path())])
            .arg(&archive)
            .output()
            .context("run ctr images import")?;
        if !output.status.success() {
            bail!("ctr images import: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        }
        Ok(())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.init.stdin.take()); // the shell's `cat` ends, and the kernel kills what is left in the pid namespace
        if let Err(error) = self.init.wait() {
            eprintln!("containerd's namespace did not end: {error}");
        }
        if let Err(error) = cgroup::remove(&self.cgroup_parent) {
            eprintln!("the pods' cgroups stay behind: {error:#}");
        }
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("containerd.log")
}
