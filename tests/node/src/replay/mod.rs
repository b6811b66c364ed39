//! Plays the recording of a real node again: the same system calls on a unix socket between two processes, past the live
//! probes of a fresh agent, with the run's OTLP sent to that agent and a fake upstream behind it.
//!
//! ```text
//!  replay-side client ◄─unix socket─► replay-side server      recorded requests ─OTLP─► agent ─OTLP─► fake upstream
//!          ▲                                  ▲                                           │
//!          └───────────── conductor ──────────┘                                probes on the socket
//! ```

mod conductor;
mod control;
mod events;
mod otlp;
mod recording;
mod script;
mod shift;
mod side;
mod socket;
mod summary;
mod timeline;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use conductor::Pair;
pub use control::SideReport;
pub use events::{Action, Event, Events, Part};
pub use recording::{Connection, Direction, Recording, Side};
pub use side::{SideArguments, play};
pub use summary::Summary;
pub use timeline::{Timeline, monotonic_ns, wall_offset_ns};

use crate::agent::{self, Agent, Ports};
use crate::programs;
use crate::upstream::{Keep, Upstream};
use otlp::{Requests, Sent};

/// From the start command to the first event, so that both sides have heard it.
const LEAD: Duration = Duration::from_millis(200);
/// How long the agent may take to export what it holds when the replay is over.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The recorder keeps every call of a long recording, which the default would not.
const RECORD_BYTES: u64 = 1 << 30;

/// What to replay and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Recording, as in `tests/fixtures/cri/cri-conn-k134-c17`
    pub prefix: PathBuf,
    /// Divides all pauses
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    pub speed: f64,
    /// Start the agent late: when connection 1 has carried this many bytes of its client, everything stands still until the
    /// probes are attached
    #[arg(long, value_name = "BYTES")]
    pub from_offset: Option<u64>,
    /// Write all that arrived upstream: varint-delimited `ExportTraceServiceRequest`s
    #[arg(long, value_name = "FILE")]
    pub spans: Option<PathBuf>,
    /// Write what the agent's `/api/v1/calls` answered, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub calls: Option<PathBuf>,
    /// Path of the unix socket; default: in a directory of its own
    #[arg(long, hide = true)]
    pub socket: Option<PathBuf>,
    /// The agent's `capture.mode`
    #[arg(long, hide = true)]
    pub capture_mode: Option<String>,
    /// Send OTLP when both sides are done: where they are late, spans would come before their calls
    #[arg(long, hide = true)]
    pub spans_last: bool,
}

/// Replays from start to end; tells of the way it goes, a line now and then.
///
/// # Errors
/// When the recording is not complete, probes cannot be attached, or a side cannot do what was recorded.
pub async fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Summary> {
    let keep = match &options.spans {
        Some(path) => Keep::File(File::create(path).with_context(|| format!("create {}", path.display()))?),
        None => Keep::Ids,
    };
    let mut replay = Replay::prepare(options, keep).await?;
    let played = replay.play(progress).await?;
    replay.finish(&played, options.calls.as_deref()).await
}

impl Options {
    /// The recording as it was, seen from its start.
    pub fn new(prefix: &Path) -> Self {
        Self {
            prefix: prefix.to_owned(),
            speed: 1.0,
            from_offset: None,
            spans: None,
            calls: None,
            socket: None,
            capture_mode: None,
            spans_last: false,
        }
    }
}

/// A replay under way. Dropping it ends everything that it started.
#[derive(Debug)]
pub struct Replay {
    recording: Recording,
    requests: Option<Requests>,
    pair: Pair,
    upstream: Upstream,
    agent: Option<Agent>,
    ports: Ports,
    config: Value,
    spans_last: bool,
    mode: String,
    timeline: watch::Sender<Timeline>,
    acknowledged: Arc<watch::Sender<u64>>,
    directory: TempDir,
}

impl Replay {
    /// Reads the recording, starts upstream, agent and both sides. The agent comes later with `from_offset`.
    ///
    /// # Errors
    /// When the recording is not complete, or probes cannot be attached.
    pub async fn prepare(options: &Options, keep: Keep) -> Result<Self> {
        let recording = Recording::open(&options.prefix)?;
        let requests = Requests::open(&recording)?;
        let hold_ns = options.from_offset.map(|bytes| recording.reached_ns(bytes)).transpose()?;
        let directory = tempfile::Builder::new().prefix("spanlet-replay-").tempdir()?;
        let upstream = Upstream::start(keep)?;
        let socket = options.socket.clone().unwrap_or_else(|| directory.path().join("cri.sock"));
        let ports = Ports::free()?;
        let mut config = agent::config(&ports, &socket, &upstream.endpoint());
        config["record"] = json!({"max_bytes": RECORD_BYTES});
        config["enrich"] = json!({"runtime": "off"}); // the recorded runtime answers only its recorded client
        config["memory"] = json!({"max_bytes": 2 * RECORD_BYTES});
        if let Some(mode) = &options.capture_mode {
            config["capture"]["mode"] = json!(mode);
        }
        let first_ns = recording.first_ns;
        let timeline = Timeline { first_ns, start_ns: 0, speed: options.speed, hold_ns, resumed_ns: None };
        let pair = Pair::start(&programs::find("spanlet-node")?, &options.prefix, &socket).await?;
        let mut replay = Self {
            recording,
            requests: Some(requests),
            pair,
            upstream,
            agent: None,
            ports,
            config,
            spans_last: options.spans_last,
            mode: String::new(),
            timeline: watch::Sender::new(timeline),
            acknowledged: Arc::new(watch::Sender::new(0)),
            directory,
        };
        if hold_ns.is_none() {
            replay.start_agent().await?;
        }
        Ok(replay)
    }

    /// Plays everything; returns when the agent has exported what it took.
    pub async fn play(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Played> {
        let mut played = self.progress();
        progress(&played.announcement());
        let timeline = self.timeline.subscribe();
        let playing = self.conduct();
        tokio::pin!(playing);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                done = &mut playing => return done,
                _ = ticks.tick() => progress(&played.update(&timeline.borrow())),
            }
        }
    }

    async fn conduct(&mut self) -> Result<Played> {
        let wall_offset_ns = wall_offset_ns();
        let start_ns = monotonic_ns() + LEAD.as_nanos() as u64;
        self.timeline.send_modify(|timeline| timeline.start_ns = start_ns);
        self.pair.follow(*self.timeline.borrow()).await?;

        let requests = self.requests.take().context("a replay is played once")?;
        let endpoint = self.ports.otlp_endpoint();
        let (timeline, acknowledged) = (self.timeline.subscribe(), self.acknowledged.clone());
        let mut sending = JoinSet::new(); // dropped with the replay
        let mut waiting = Some(async move { requests.send(&endpoint, timeline, wall_offset_ns, acknowledged).await });
        if !self.spans_last {
            waiting.take().map(|send| sending.spawn(send));
        }
        if self.timeline.borrow().hold_ns.is_some() {
            self.pair.wait_until_holding().await?;
            self.start_agent().await?;
            let resumed_ns = monotonic_ns() + LEAD.as_nanos() as u64;
            self.timeline.send_modify(|timeline| timeline.resumed_ns = Some(resumed_ns));
            self.pair.follow(*self.timeline.borrow()).await?;
        }
        let (client, server) = self.pair.finish().await?;
        waiting.take().map(|send| sending.spawn(send));
        let sent = sending.join_next().await.expect("one was spawned")??;
        self.wait_until_settled(&sent).await?;
        Ok(Played { client, server, sent })
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Spans that the agent has acknowledged so far.
    pub fn acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }

    pub fn upstream(&mut self) -> &mut Upstream {
        &mut self.upstream
    }

    /// The agent; with `from_offset` none before the sides stand still.
    pub fn agent(&mut self) -> Option<&mut Agent> {
        self.agent.as_mut()
    }

    fn progress(&self) -> Progress {
        let last_request_ns = self.requests.as_ref().and_then(Requests::last_ns).unwrap_or(0);
        let last_ns = last_request_ns.max(self.recording.last_ns);
        let speed = self.timeline.borrow().speed;
        Progress { speed, whole: (last_ns - self.recording.first_ns) as f64 / 1e9, played: 0.0 }
    }

    /// Asks the agent what it saw, drains it, and adds up.
    pub async fn finish(mut self, played: &Played, calls_path: Option<&Path>) -> Result<Summary> {
        let agent = self.agent.as_mut().context("no agent was started")?;
        let calls: Vec<Value> = agent.get("/api/v1/calls").await?;
        let status = agent.status().await?;
        if let Some(path) = calls_path {
            write_lines(path, &calls).with_context(|| format!("write {}", path.display()))?;
        }
        let exit = agent.stop().await?;
        ensure!(exit.success(), "spanlet ended with {exit} after SIGTERM:\n{}", agent.log());
        let mut summary = Summary::new(&self.recording, &self.mode, &calls, &status);
        summary.add_spans(&played.sent, self.upstream.received());
        summary.client = played.client;
        summary.server = played.server;
        Ok(summary)
    }

    async fn start_agent(&mut self) -> Result<()> {
        let mut agent = Agent::start(self.directory.path(), self.ports, &self.config)?;
        self.mode = agent.wait_until_attached().await?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Waits until nothing is under way any more; the agent reads the kernel's counters once a second. A summary that does not
    /// balance tells the rest.
    async fn wait_until_settled(&mut self, sent: &Sent) -> Result<()> {
        let agent = self.agent.as_mut().context("no agent was started")?;
        let deadline = tokio::time::Instant::now() + SETTLE_TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            if summary::is_settled(&agent.status().await?, sent.acknowledged_spans) {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// What a finished replay did.
#[derive(Debug, Clone, Copy)]
pub struct Played {
    pub client: SideReport,
    pub server: SideReport,
    sent: Sent,
}

/// How far a replay has come, in seconds of the recording.
#[derive(Debug, Clone, Copy)]
struct Progress {
    whole: f64,
    played: f64,
    speed: f64,
}

impl Progress {
    fn announcement(&self) -> String {
        format!("{:.0} s were recorded; at speed {} they take {:.0} s", self.whole, self.speed, self.whole / self.speed)
    }

    fn update(&mut self, timeline: &Timeline) -> String {
        let played_ns = timeline.recorded_ns(monotonic_ns()) - timeline.first_ns;
        self.played = (played_ns as f64 / 1e9).min(self.whole);
        format!("played {:.0} of {:.0} s", self.played, self.whole)
    }
}

fn write_lines(path: &Path, values: &[Value]) -> Result<()> {
    let mut out = std::io::BufWriter::new(fs::File::create(path)?);
    for value in values {
        serde_json::to_writer(&mut out, value)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if speed > 0.0 && f64::is_finite(speed) => Ok(speed),
        _ => Err("a number above 0".to_owned()),
    }
}
