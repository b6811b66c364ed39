//! Starts the two side processes and leads them through a replay.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::control::{Command as SideCommand, Message, SideReport};
use super::recording::Side;
use super::timeline::Timeline;

/// Time for steps that came before the hold, but late.
const SETTLE: Duration = Duration::from_millis(500);

/// Both sides of a replay, each a process. Dropping it kills them.
#[derive(Debug)]
pub struct Pair {
    client: SideProcess,
    server: SideProcess,
}

#[derive(Debug)]
struct SideProcess {
    side: Side,
    child: Child,
    commands: ChildStdin,
    messages: Lines<BufReader<ChildStdout>>,
}

impl Pair {
    /// Starts both, the server first, and waits until both are ready.
    ///
    /// # Errors
    /// When a process cannot be started or does not find the recording.
    pub async fn start(node_program: &Path, prefix: &Path, socket: &Path) -> Result<Self> {
        let server = SideProcess::start(node_program, Side::Server, prefix, socket).await?;
        let client = SideProcess::start(node_program, Side::Client, prefix, socket).await?;
        Ok(Self { client, server })
    }

    /// Process ids of client and server.
    pub fn pids(&self) -> (Option<u32>, Option<u32>) {
        (self.client.child.id(), self.server.child.id())
    }

    /// Starts the replay or, given with `resumed_ns`, lets it go on.
    pub async fn follow(&mut self, timeline: Timeline) -> Result<()> {
        self.server.command(SideCommand::Timeline(timeline)).await?;
        self.client.command(SideCommand::Timeline(timeline)).await
    }

    /// Waits until both sides stand still.
    pub async fn wait_until_holding(&mut self) -> Result<()> {
        match self.client.next().await? {
            Message::Holding => {}
            other => bail!("the client should stand still, but says {other:?}"),
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Waits for the end; returns what client and server did.
    pub async fn finish(&mut self) -> Result<(SideReport, SideReport)> {
        tokio::try_join!(self.client.done(), self.server.done())
    }
}

impl SideProcess {
    async fn start(program: &Path, side: Side, prefix: &Path, socket: &Path) -> Result<Self> {
        let mut child = punctual(program)
            .args(["replay-side", side.name()])
            .args([prefix, socket])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // a Ctrl-C at the terminal is the conductor's to handle
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {} as the {}", program.display(), side.name()))?;
        let commands = child.stdin.take().expect("piped");
        let messages = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut process = Self { side, child, commands, messages };
        match process.next().await? {
            Message::Ready => Ok(process),
            other => bail!("the {} should be ready, but says {other:?}", side.name()),
        }
    }

    async fn command(&mut self, command: SideCommand) -> Result<()> {
        let line = serde_json::to_string(&command)? + "\n";
        self.commands.write_all(line.as_bytes()).await.with_context(|| format!("command the {}", self.side.name()))
    }

    async fn next(&mut self) -> Result<Message> {
        match self.messages.next_line().await? {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("the {} says {line}", self.side.name())),
            None => bail!("the replayed {} ended early with {}", self.side.name(), self.child.wait().await?),
        }
    }

    async fn done(&mut self) -> Result<SideReport> {
        match self.next().await? {
            Message::Done(report) => Ok(report),
            other => bail!("the {} should be done, but says {other:?}", self.side.name()),
        }
    }
}

/// A command that runs `program` ahead of what else the machine does, where that is allowed: a side mostly sleeps, and what
/// it does late would be measured as the agent's fault.
fn punctual(program: &Path) -> Command {
    let allowed = std::process::Command::new("chrt").args(["--fifo", "1", "true"]).stderr(Stdio::null()).status();
    if allowed.is_ok_and(|status| status.success()) {
        let mut command = Command::new("chrt");
        command.args(["--fifo", "1"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}
