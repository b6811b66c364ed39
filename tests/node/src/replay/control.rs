//! What the two sides and their conductor tell each other, one JSON object a line over standard input and output.

use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::timeline::Timeline;

/// From the conductor to a side.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    /// The first is the start, a second one the end of the hold.
    Timeline(Timeline),
}

/// From a side to its conductor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// Listening, or ready to connect.
    Ready,
    /// The write that the hold waits for is done.
    Holding,
    Done(SideReport),
}

/// What a side did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideReport {
    pub connections: u64,
    pub reads: u64,
    pub writes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Reads that were left out, because an earlier one had got their bytes too.
    pub merged_reads: u64,
    /// Reads that asked for less than recorded, because the other side was ahead.
    pub shortened_reads: u64,
    /// How late steps were; half of them at most this, microseconds.
    pub late_p50_us: u64,
    pub late_p99_us: u64,
    pub late_max_us: u64,
}

pub(super) fn tell(message: &Message) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    out.flush().context("tell the conductor")
}

/// The shared timeline of a side's threads.
#[derive(Debug, Clone)]
pub(super) struct Schedule(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    timeline: Mutex<Timeline>,
    changed: Condvar,
}

impl Schedule {
    /// Waits for the start, then follows what the conductor says. When the conductor is gone, so is this process.
    pub(super) fn from_conductor() -> Result<Self> {
        let mut lines = std::io::stdin().lock().lines();
        let Some(first) = lines.next() else { bail!("the conductor left before the start") };
        let Command::Timeline(timeline) = serde_json::from_str(&first?).context("read the conductor's command")?;
        drop(lines);
        let inner = Arc::new(Inner { timeline: Mutex::new(timeline), changed: Condvar::new() });
        let schedule = Self(inner);
        let follower = schedule.clone();
        std::thread::Builder::new().name("conductor".to_owned()).spawn(move || follower.follow())?;
        Ok(schedule)
    }

    /// When a step is due on CLOCK_MONOTONIC; blocks while it is behind a hold.
    pub(super) fn due_ns(&self, recorded_ns: u64) -> u64 {
        let mut timeline = self.0.timeline.lock().expect("no thread panics while it holds the lock");
        loop {
            if let Some(due_ns) = timeline.due_ns(recorded_ns) {
                return due_ns;
            }
            timeline = self.0.changed.wait(timeline).expect("no thread panics while it holds the lock");
        }
    }

    /// Whether a step is behind the hold, whether or not that has ended.
    pub(super) fn is_behind_hold(&self, recorded_ns: u64) -> bool {
        let timeline = self.0.timeline.lock().expect("no thread panics while it holds the lock");
        timeline.hold_ns.is_some_and(|hold_ns| recorded_ns > hold_ns)
    }

    /// Whether everything stands still now.
    pub(super) fn is_holding(&self) -> bool {
        let timeline = self.0.timeline.lock().expect("no thread panics while it holds the lock");
        timeline.hold_ns.is_some() && timeline.resumed_ns.is_none()
    }

    fn follow(&self) {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Ok(Command::Timeline(timeline)) = serde_json::from_str(&line) {
                *self.0.timeline.lock().expect("no thread panics while it holds the lock") = timeline;
                self.0.changed.notify_all();
            }
        }
        std::process::exit(1);
    }
}
