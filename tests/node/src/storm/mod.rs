//! Calls of every kind, many at a time and cut into every sort of system call, past the probes of a fresh agent; then the
//! agent's account of them against their client's.
//!
//! ```text
//!  storm-client ◄── unix socket, HTTP/2 ──► storm-server        storm-blocked: threads that hang in reads and writes
//!       │  facts           │
//!       ▼                probes ─► agent
//!     Storm ◄── /api/v1/calls ────────┘
//! ```

mod blocked;
mod churn;
mod client;
mod compare;
mod fact;
mod plan;
mod pool;
mod process;
mod report;
mod server;
mod socket;
mod unwatched;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use spanlet::api::CallEntry;
use tempfile::TempDir;
use tokio::time::Instant;

pub use blocked::{BlockedArguments, block};
pub use churn::{ChurnOptions, ChurnReport, churn};
pub use client::{ClientArguments, run as run_client};
pub use compare::{Differences, compare};
pub use fact::{Fact, Outcome};
pub use report::{Report, imbalances};
pub use server::{ServerArguments, serve as run_server};

use crate::agent::{self, Agent, Ports};
use process::{Command, Message, Process};

/// A call whose response nobody was seen to read is told after 10 s.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// With so much the recorder keeps every call.
const RECORD_BYTES: u64 = 256 << 20;

/// What storm to make.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The agent's `capture.mode`
    #[arg(long)]
    pub capture_mode: Option<String>,
    #[arg(long, default_value_t = 1_000)]
    pub calls: u64,
    /// Calls at a time
    #[arg(long, default_value_t = 40)]
    pub streams: usize,
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// So many threads are blocked in reads, and as many in writes, on other sockets
    #[arg(long, default_value_t = 0)]
    pub blocked: usize,
    /// The agent's `capture.ring_bytes`
    #[arg(long)]
    pub ring_bytes: Option<u64>,
    /// The server says GOAWAY on a connection after so many calls
    #[arg(long, default_value_t = 0)]
    pub goaway_every: u64,
    /// The agent's `capture.max_cpu_ratio`; none by default, since a storm is no usual load
    #[arg(skip)]
    pub max_cpu_ratio: Option<f64>,
    /// The agent's `record.max_bytes`
    #[arg(skip = RECORD_BYTES)]
    pub record_bytes: u64,
    /// The agent's `export.endpoint`
    #[arg(skip)]
    pub endpoint: Option<String>,
    /// Fail even if all that is missing is explained by counted losses
    #[arg(long)]
    pub exact: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capture_mode: None,
            calls: 1_000,
            streams: 40,
            connections: 1,
            seed: 1,
            blocked: 0,
            ring_bytes: None,
            goaway_every: 0,
            max_cpu_ratio: None,
            record_bytes: RECORD_BYTES,
            endpoint: None,
            exact: true,
        }
    }
}

/// Makes a storm from start to end.
///
/// # Errors
/// When probes cannot be attached, or a call does not go as planned.
pub async fn run(options: &Options) -> Result<Report> {
    let mut storm = Storm::start(options).await?;
    storm.make(options.calls, options.streams).await?;
    storm.finish().await
}

/// A storm under way. Dropping it ends everything that it started.
#[derive(Debug)]
pub struct Storm {
    options: Options,
    agent: Agent,
    server: Process,
    client: Process,
    _blocked: Option<Process>,
    facts: Vec<Fact>,
    /// What the agent has told so far, by connection, stream and `traceparent`: the recorder may have forgotten it since.
    told: HashMap<(u64, u32, Option<String>), CallEntry>,
    /// Processes started so far: each has a seed of its own.
    started: u64,
    directory: TempDir,
}

impl Storm {
    /// Starts agent, server, client and blocked threads.
    ///
    /// # Errors
    /// When one of them does not start, or no probes can be attached.
    pub async fn start(options: &Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("spanlet-storm-").tempdir()?;
        let ports = Ports::free()?;
        let mut agent = Agent::start(directory.path(), ports, &config(options, &ports, &directory))?;
        agent.wait_until_attached().await?;
        let blocked = match options.blocked {
            0 => None,
            threads => {
                let path = directory.path().join("watched-blocked.sock");
                Some(Process::start("storm-blocked", &[path.display().to_string(), threads.to_string()]).await?)
            }
        };
        let server = start_server(options, &directory, 0).await?;
        let client = start_client(options, &directory, 1).await?;
        let options = options.clone();
        Ok(Self {
            options,
            agent,
            server,
            client,
            _blocked: blocked,
            facts: Vec::new(),
            told: HashMap::new(),
            started: 2,
            directory,
        })
    }

    pub fn agent(&mut self) -> &mut Agent {
        &mut self.agent
    }

    /// What the clients have told so far.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// Makes calls, `at_a_time`, and waits for their ends.
    pub async fn make(&mut self, calls: u64, at_a_time: usize) -> Result<()> {
        self.begin(calls, at_a_time).await?;
        self.done().await
    }

    /// Begins to make calls.
    pub async fn begin(&mut self, calls: u64, at_a_time: usize) -> Result<()> {
        self.client.command(Command::Run { calls, at_a_time }).await
    }

    /// Waits until so many more calls are over.
    pub async fn over(&mut self, calls: usize) -> Result<()> {
        for _ in 0..calls {
            match self.client.next().await? {
                Message::Call(fact) => self.facts.push(fact),
                other => bail!("the client should tell of calls, but says {other:?}"),
            }
        }
        Ok(())
    }

    /// Opens calls that stay open until one of the processes is killed.
    pub async fn hang(&mut self, calls: u64) -> Result<()> {
        self.client.command(Command::Hang { calls }).await?;
        self.done().await
    }

    /// Waits until the client has done what it was told.
    pub async fn done(&mut self) -> Result<()> {
        loop {
            match self.client.next().await? {
                Message::Call(fact) => self.facts.push(fact),
                Message::Done => return Ok(()),
                other => bail!("the client should be done, but says {other:?}"),
            }
        }
    }

    /// Kills the server and starts another on the same socket.
    pub async fn restart_server(&mut self) -> Result<()> {
        self.server.kill().await?;
        let number = self.next_number();
        self.server = start_server(&self.options, &self.directory, number).await?;
        Ok(())
    }

    /// Kills the client and starts another.
    pub async fn restart_client(&mut self) -> Result<()> {
        self.client.kill().await?;
        let number = self.next_number();
        self.client = start_client(&self.options, &self.directory, number).await?;
        Ok(())
    }

    fn next_number(&mut self) -> u64 {
        self.started += 1;
        self.started - 1
    }

    /// Waits until the agent tells of as many calls as were made, all of them over, and its ledger balances. If it lost events
    /// it need not tell of all; and what it does not tell after a while, it never does.
    pub async fn settled(&mut self) -> Result<Vec<CallEntry>> {
        let certain = self.facts.iter().filter(|fact| fact.outcome != Outcome::Unsure).count();
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            self.ask().await?;
            let status = self.agent.status().await?;
            let are_over = self.told.len() >= certain && self.told.values().all(|call| call.status.is_some());
            let are_lost = !status.events.lost.is_empty();
            let is_settled = imbalances(&status.events).is_empty() && (are_over || are_lost);
            if is_settled || Instant::now() > deadline {
                return Ok(self.told.values().cloned().collect());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Asks the agent for its calls.
    async fn ask(&mut self) -> Result<()> {
        let calls: Vec<CallEntry> = self.agent.get("/api/v1/calls").await?;
        let mut keys = HashSet::new();
        for call in calls {
            let key = (call.connection, call.stream, call.traceparent.clone());
            ensure!(keys.insert(key.clone()), "told twice: {call:?}");
            self.told.insert(key, call);
        }
        Ok(())
    }

    /// Waits until the agent has counted events that were lost, and that it lost track.
    pub async fn lost(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while self.agent.status().await?.events.lost.is_empty()
            || gaps(&self.agent.metrics().await?).get("track_lost").is_none_or(|&count| count == 0)
        {
            ensure!(Instant::now() < deadline, "no event was lost");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Ends the client, compares, and ends everything.
    pub async fn finish(mut self) -> Result<Report> {
        self.client.command(Command::End).await?;
        self.done().await?;
        let calls = self.settled().await?;
        let report = Report::new(
            &self.facts,
            compare(&self.facts, &calls),
            &self.agent.status().await?,
            gaps(&self.agent.metrics().await?),
        );
        self.client.ended().await?;
        self.server.ended().await?;
        let exit = self.agent.stop().await?;
        ensure!(exit.success(), "spanlet ended with {exit} after SIGTERM:\n{}", self.agent.log());
        Ok(report)
    }
}

fn config(options: &Options, ports: &Ports, directory: &TempDir) -> Value {
    let mut config = agent::config(ports, &directory.path().join("watched*"), "");
    config["export"] = json!({"endpoint": options.endpoint});
    config["capture"]["max_cpu_ratio"] = json!(options.max_cpu_ratio);
    config["record"] = json!({"max_bytes": options.record_bytes});
    config["memory"] = json!({"max_bytes": 2 * RECORD_BYTES});
    if let Some(mode) = &options.capture_mode {
        config["capture"]["mode"] = json!(mode);
    }
    if let Some(bytes) = options.ring_bytes {
        config["capture"]["ring_bytes"] = json!(bytes);
    }
    config
}

async fn start_server(options: &Options, directory: &TempDir, number: u64) -> Result<Process> {
    let seed = options.seed.wrapping_add(number << 48);
    let arguments = [socket(directory), format!("--seed={seed}"), format!("--goaway-every={}", options.goaway_every)];
    Process::start("storm-server", &arguments).await
}

async fn start_client(options: &Options, directory: &TempDir, number: u64) -> Result<Process> {
    let seed = options.seed.wrapping_add(number << 48);
    let arguments = [socket(directory), format!("--seed={seed}"), format!("--connections={}", options.connections)];
    Process::start("storm-client", &arguments).await
}

fn socket(directory: &TempDir) -> String {
    directory.path().join("watched.sock").display().to_string()
}

/// `spanlet_capture_gaps_total` by cause.
pub fn gaps(metrics: &str) -> BTreeMap<String, u64> {
    let gap = |line: &str| {
        let (cause, count) = line.strip_prefix("spanlet_capture_gaps_total{cause=\"")?.split_once("\"} ")?;
        Some((cause.to_owned(), count.parse().ok()?))
    };
    metrics.lines().filter_map(gap).collect()
}
