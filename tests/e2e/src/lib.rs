//! What the end-to-end tests share: the programs under test, the recordings, and what their files say must be seen.

pub mod expected;
pub mod spans;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tokio::sync::{Mutex, MutexGuard};

/// Tests of one program take turns: each measures times on the machine's few processors.
static TURN: Mutex<()> = Mutex::const_new(());

/// What a test holds while it runs.
#[derive(Debug)]
pub struct Turn {
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for this test's turn; `None`, with the reason printed, when the machine cannot run it.
    pub async fn take() -> Option<Self> {
        let guard = TURN.lock().await;
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: probes need root");
            return None;
        }
        build_programs();
        Some(Self { _guard: guard })
    }
}

/// `…/cri-conn-NAME` of the repository's recordings.
pub fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/cri").join(format!("cri-conn-{name}"))
}

/// Builds what the tests start as processes; a test's own dependencies are libraries only.
fn build_programs() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--package", "spanlet", "--package", "spanlet-node", "--bins"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "cargo build: {status}");
    });
}
