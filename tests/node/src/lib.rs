//! What tests need of a node: a real container runtime with a stand-in kubelet, recordings of a real kubelet played again,
//! and an upstream that can fail in every way an upstream can.

pub mod agent;
pub mod demo;
pub mod execs;
pub mod http2;
pub mod kubelet;
pub mod programs;
mod raw;
pub mod replay;
pub mod runtime;
pub mod stand_in;
pub mod storm;
pub mod upstream;
pub mod ways;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Runs `work` to its end, or drops it at Ctrl-C or SIGTERM, so that everything it started is cleaned up.
///
/// # Errors
/// Those of `work`, and when it was interrupted.
pub async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased; // signals are caught before `work` starts anything
        stopped = stopped() => stopped.and_then(|()| bail!("interrupted")),
        done = work => done,
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn stopped() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
