//! A process of a storm and how its conductor talks to it: one JSON object a line over standard input and output.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::fact::Fact;
use crate::programs;

/// From the conductor to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    /// Make so many calls, drawn by chance, so many at a time.
    Run { calls: u64, at_a_time: usize },
    /// Open so many calls that stay open until one of the processes is killed.
    Hang { calls: u64 },
    /// Open and close connections that nobody watches, and make calls beside.
    Churn { seconds: u64, connections_per_second: u64, calls_per_second: u64 },
    /// Close the connections in good order and end.
    End,
}

/// From a process to the conductor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// Listening, or ready to connect.
    Ready,
    Call(Fact),
    /// So many connections that nobody watches were opened and closed.
    Churned {
        connections: u64,
    },
    /// The command is carried out.
    Done,
}

/// Tells the conductor.
pub(super) fn tell(message: &Message) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    out.flush().context("tell the conductor")
}

/// Commands as they come; none any more when the conductor is gone.
#[derive(Debug)]
pub(super) struct Commands(Lines<BufReader<tokio::io::Stdin>>);

/// A process, seen by its conductor. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    commands: ChildStdin,
    messages: Lines<BufReader<ChildStdout>>,
}

// === impl Commands ===

impl Commands {
    pub(super) fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()).lines())
    }

    pub(super) async fn next(&mut self) -> Result<Option<Command>> {
        let Some(line) = self.0.next_line().await? else { return Ok(None) };
        serde_json::from_str(&line).map(Some).with_context(|| format!("understand the command {line}"))
    }
}

// === impl Process ===

impl Process {
    /// Runs this program as `name`, a hidden subcommand, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead.
    pub(super) async fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        let mut child = tokio::process::Command::new(programs::find("spanlet-node")?)
            .arg(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // a Ctrl-C at the terminal is the conductor's to handle
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let commands = child.stdin.take().expect("piped");
        let messages = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut process = Self { name, child, commands, messages };
        match process.next().await? {
            Message::Ready => Ok(process),
            other => bail!("{name} should be ready, but says {other:?}"),
        }
    }

    pub(super) async fn command(&mut self, command: Command) -> Result<()> {
        let line = serde_json::to_string(&command)? + "\n";
        self.commands.write_all(line.as_bytes()).await.with_context(|| format!("command {}", self.name))
    }

    pub(super) async fn next(&mut self) -> Result<Message> {
        match self.messages.next_line().await? {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("{} says {line}", self.name)),
            None => bail!("{} ended early with {}", self.name, self.child.wait().await?),
        }
    }

    /// Kills it, so that it closes nothing by itself, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(mut self) -> Result<()> {
        drop(self.commands);
        while self.messages.next_line().await?.is_some() {}
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}", self.name) }
    }
}
