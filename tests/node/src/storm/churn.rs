//! Churn: connections that nobody watches are opened and closed all the time by the very processes that make the node's calls,
//! and the connections of those come and go as well. The agent must tell of the calls only, and must not grow.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::time::{Instant, interval};

use super::process::{Command, Message};
use super::{Options, Report, Storm};

/// The recorder is full within the first minute; from then on nothing is to grow.
const RECORD_BYTES: u64 = 1 << 20;
/// How often memory is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the agent is asked for its calls, in samples: the recorder holds those of half a minute and more.
const SAMPLES_PER_ANSWER: usize = 5;
const MINUTE_SAMPLES: usize = 60;

/// What churn to make.
#[derive(Debug, Clone, clap::Args)]
pub struct ChurnOptions {
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Opened and closed where nobody watches
    #[arg(long, default_value_t = 1_000)]
    pub connections_per_second: u64,
    /// On watched connections
    #[arg(long, default_value_t = 50)]
    pub calls_per_second: u64,
    /// The agent's `capture.mode`
    #[arg(long)]
    pub capture_mode: Option<String>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Default for ChurnOptions {
    fn default() -> Self {
        Self { seconds: 600, connections_per_second: 1_000, calls_per_second: 50, capture_mode: None, seed: 1 }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ChurnReport {
    /// Connections that nobody watched.
    pub unwatched: u64,
    /// The agent's memory, each second: bytes.
    pub resident_bytes: Vec<u64>,
    pub calls: Report,
}

/// Makes churn from start to end.
///
/// # Errors
/// When probes cannot be attached, or a call does not go as planned.
pub async fn churn(options: &ChurnOptions) -> Result<ChurnReport> {
    let storm_options = Options {
        capture_mode: options.capture_mode.clone(),
        seed: options.seed,
        connections: 4,
        record_bytes: RECORD_BYTES,
        ..Options::default()
    };
    let mut storm = Storm::start(&storm_options).await?;
    let ChurnOptions { seconds, connections_per_second, calls_per_second, .. } = *options;
    storm.client.command(Command::Churn { seconds, connections_per_second, calls_per_second }).await?;
    let mut resident_bytes = Vec::new();
    let mut samples = interval(SAMPLE_INTERVAL);
    let unwatched = loop {
        tokio::select! {
            message = storm.client.next() => match message? {
                Message::Call(fact) => storm.facts.push(fact),
                Message::Churned { connections } => break connections,
                other => bail!("the client should tell of calls, but says {other:?}"),
            },
            _ = samples.tick() => {
                resident_bytes.push(resident(storm.agent.pid().context("the agent has ended")?)?);
                if resident_bytes.len() % SAMPLES_PER_ANSWER == 0 {
                    storm.ask().await?;
                }
            }
        }
    };
    storm.done().await?;
    Ok(ChurnReport { unwatched, resident_bytes, calls: storm.finish().await? })
}

fn resident(pid: u32) -> Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("understand VmRSS")?;
    Ok(kib << 10)
}

// === impl ChurnReport ===

impl ChurnReport {
    /// Medians of the second minute and of the last one, bytes; none if it lasted less than three minutes.
    pub fn medians(&self) -> Option<(u64, u64)> {
        let minutes: Vec<&[u64]> = self.resident_bytes.chunks_exact(MINUTE_SAMPLES).collect();
        if minutes.len() < 3 {
            return None;
        }
        Some((median(minutes[1]), median(minutes[minutes.len() - 1])))
    }

    /// Whether only what was made was told, nothing was lost, and memory stayed flat as far as that can be said.
    pub fn holds(&self) -> bool {
        let is_flat = self.medians().is_none_or(|(early, late)| late <= early + early / 20 + (1 << 20));
        let is_quiet = ["stray_record", "connection_refused", "track_lost"]
            .iter()
            .all(|cause| self.calls.gaps.get(*cause).is_none_or(|&count| count == 0));
        self.calls.holds(true) && self.calls.events_lost == 0 && is_flat && is_quiet
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

impl fmt::Display for ChurnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.calls)?;
        writeln!(f, "unwatched   {} connections", self.unwatched)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let most = self.resident_bytes.iter().max().copied().unwrap_or(0);
        write!(f, "memory      at most {:.1} MiB", mib(most))?;
        if let Some((early, late)) = self.medians() {
            write!(f, "; {:.1} MiB in the second minute, {:.1} MiB in the last (medians)", mib(early), mib(late))?;
        }
        Ok(())
    }
}

/// The client's part: calls at a steady rate over connections that come and go, beside unwatched ones.
pub(super) mod client {
    use std::sync::Arc;

    use fastrand::Rng;
    use tokio::task::JoinSet;

    use super::super::client::call;
    use super::super::plan::Plan;
    use super::super::pool::Pool;
    use super::super::unwatched;
    use super::*;

    /// Calls on a connection before it is closed and made again.
    const CALLS_PER_CONNECTION: u64 = 25;

    pub(in super::super) async fn run(
        pool: &Arc<Pool>,
        rng: &mut Rng,
        lasting: Duration,
        [connections_per_second, calls_per_second]: [u64; 2],
    ) -> Result<u64> {
        let unwatched = tokio::spawn(unwatched::churn(pool.unwatched(), connections_per_second, lasting));
        let mut calls = JoinSet::new();
        let mut due = interval(Duration::from_secs(1) / u32::try_from(calls_per_second)?);
        let end = Instant::now() + lasting;
        let mut made = 0;
        while Instant::now() < end {
            due.tick().await;
            let slot = made as usize;
            made += 1;
            if made % CALLS_PER_CONNECTION == 0 {
                pool.renew(slot).await;
            }
            let (pool, mut rng) = (Arc::clone(pool), rng.fork());
            calls.spawn(async move { call(&pool, slot, &Plan::draw(&mut rng), &mut rng).await });
            while let Some(over) = calls.try_join_next() {
                over.context("a call")??;
            }
        }
        while let Some(over) = calls.join_next().await {
            over.context("a call")??;
        }
        unwatched.await.context("unwatched connections")?
    }
}
