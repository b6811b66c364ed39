//! The ways in which programs write to a socket and read from it: what the probes do not follow is counted as such, nothing else is,
//! and the calls behind it are told exactly again.

use std::fmt;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    MMsgHdr, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, send, sendmmsg, sendmsg,
};
use rustix::pipe::{SpliceFlags, pipe, splice};
use serde_json::json;
use spanlet::api::CallEntry;

use crate::agent::{self, Agent, Ports};
use crate::http2;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// `capture.mode` of the agent
    #[arg(long, default_value = "auto")]
    pub capture_mode: String,
}

const TOLD_WITHIN: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Plain,
    Vector,
    Send,
    Message,
    /// Two messages at once.
    Messages,
    /// From a pipe.
    Splice,
    SendFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Plain,
    Receive,
    Message,
    /// Into a pipe.
    Splice,
}

/// Who writes in that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Client,
    Server,
}

/// One call that goes over the socket in its own way.
#[derive(Debug, Clone, Copy)]
struct Way {
    writer: Writer,
    write: Write,
    /// Whether the first half is written as usual.
    half: bool,
    /// How the other end reads it.
    read: Read,
}

const WRITES: [Write; 7] =
    [Write::Plain, Write::Vector, Write::Send, Write::Message, Write::Messages, Write::Splice, Write::SendFile];
const READS: [Read; 4] = [Read::Plain, Read::Receive, Read::Message, Read::Splice];

/// Makes a call in each way past the probes of a fresh agent, and two as usual behind it.
///
/// # Errors
/// What was told otherwise than it was, or lost and not counted.
pub async fn check(capture_mode: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("cri.sock");
    let ports = Ports::free()?;
    let mut config = agent::config(&ports, &socket, "http://127.0.0.1:1");
    config["export"] = json!({}); // nothing leaves
    config["enrich"] = json!({"runtime": "off"}); // this connection only
    config["capture"]["mode"] = json!(capture_mode);
    let mut agent = Agent::start(directory.path(), ports, &config)?;
    let mode = agent.wait_until_attached().await?;
    let mut connection = Connection::open(&socket)?;
    let mut lost = 0;
    for way in ways() {
        lost += check_way(&agent, &mut connection, way, follows(&mode, way.write))
            .await
            .with_context(|| format!("{mode} mode, {way}; lost track {lost} times before"))?;
    }
    agent.stop().await?;
    Ok(())
}

fn ways() -> impl Iterator<Item = Way> {
    let read = Read::Plain;
    let writes = [Writer::Client, Writer::Server].into_iter().flat_map(move |writer| {
        WRITES.into_iter().flat_map(move |write| [false, true].map(|half| Way { writer, write, half, read }))
    });
    let reads = READS.into_iter().flat_map(|read| {
        [Writer::Client, Writer::Server].map(|writer| Way { writer, write: Write::Plain, half: false, read })
    });
    writes.chain(reads)
}

/// Whether the probes of a mode look at what is written in a way.
fn follows(mode: &str, write: Write) -> bool {
    match write {
        Write::Plain | Write::Vector | Write::Send | Write::Message => true,
        Write::Messages => mode != "tracepoint",
        Write::Splice | Write::SendFile => false,
    }
}

/// Returns how often track was lost.
async fn check_way(agent: &Agent, connection: &mut Connection, way: Way, is_followed: bool) -> Result<u64> {
    let lost_before = times_lost(agent).await?;
    let number = connection.call(Some(way))?;
    connection.call(None)?;
    let last = connection.call(None)?;
    let behind = told(agent, last).await?;
    ensure!(is_exact(&behind) && phases(&behind).iter().all(Option::is_some), "two calls later: {behind:?}");
    let lost = times_lost(agent).await? - lost_before;
    let call = find(agent, number).await?;
    if is_followed {
        ensure!(lost == 0, "lost track {lost} times");
        let call = call.context("the call is not told")?;
        // Of what is read by splice it is not known when.
        let is_whole = way.read == Read::Splice || phases(&call).iter().all(Option::is_some);
        ensure!(is_exact(&call) && is_whole, "{call:?}");
    } else {
        ensure!(lost != 0, "what is not followed was not counted; told is {call:?}");
        ensure!(call.as_ref().is_none_or(|call| call.status.is_none_or(|status| status == 0)), "{call:?}");
    }
    Ok(lost)
}

/// As it was made.
fn is_exact(call: &CallEntry) -> bool {
    call.method.as_deref() == Some(http2::METHOD) && call.status == Some(0) && call.is_over() && !call.lost_track
}

fn phases(call: &CallEntry) -> [Option<u64>; 4] {
    [call.request_wait_ns, call.handling_ns, call.response_send_ns, call.response_wait_ns]
}

async fn times_lost(agent: &Agent) -> Result<u64> {
    Ok(agent.status().await?.events.delivered.get("lost_track").copied().unwrap_or(0))
}

async fn find(agent: &Agent, number: u32) -> Result<Option<CallEntry>> {
    let calls: Vec<CallEntry> = agent.get("/api/v1/calls").await?;
    let traceparent = Some(http2::traceparent(number));
    Ok(calls.into_iter().find(|call| call.traceparent == traceparent))
}

/// Waits until a call is told to be over.
async fn told(agent: &Agent, number: u32) -> Result<CallEntry> {
    let deadline = tokio::time::Instant::now() + TOLD_WITHIN;
    loop {
        let call = find(agent, number).await?;
        if let Some(call) = call.as_ref().filter(|call| call.is_over()) {
            return Ok(call.clone());
        }
        ensure!(tokio::time::Instant::now() < deadline, "two calls later, after {TOLD_WITHIN:?}: {call:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Both ends of a watched connection.
struct Connection {
    client: UnixStream,
    server: UnixStream,
    calls: u32,
}

// === impl Connection ===

impl Connection {
    fn open(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket).context("listen as a runtime does")?;
        let mut client = UnixStream::connect(socket)?;
        let (server, _) = listener.accept()?;
        client.write_all(&http2::preface())?;
        Ok(Self { client, server, calls: 0 })
    }

    /// Makes a call, in this way or as usual; returns its number.
    fn call(&mut self, way: Option<Way>) -> Result<u32> {
        let number = self.calls;
        self.calls += 1;
        let stream = 2 * number + 1;
        let of = |writer| way.filter(|way| way.writer == writer);
        let request = http2::request(stream, &http2::traceparent(number));
        pass(&mut self.client, &mut self.server, &request, of(Writer::Client))?;
        pass(&mut self.server, &mut self.client, &http2::answer(stream), of(Writer::Server))?;
        Ok(number)
    }
}

fn pass(from: &mut UnixStream, to: &mut UnixStream, bytes: &[u8], way: Option<Way>) -> Result<()> {
    let Some(way) = way else {
        from.write_all(bytes)?;
        return read(to, Read::Plain);
    };
    let (first, second) = bytes.split_at(if way.half { bytes.len() / 2 } else { 0 });
    from.write_all(first)?;
    let written = write(from, second, way.write).with_context(|| format!("{:?}", way.write))?;
    ensure!(written == second.len(), "{:?} took {written} of {} bytes", way.write, second.len());
    read(to, way.read)
}

fn write(to: &mut UnixStream, bytes: &[u8], way: Write) -> Result<usize> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let halves = [IoSlice::new(first), IoSlice::new(second)];
    let mut nothing = [SendAncillaryBuffer::default(), SendAncillaryBuffer::default()];
    Ok(match way {
        Write::Plain => to.write(bytes)?,
        Write::Vector => to.write_vectored(&halves)?,
        Write::Send => send(to, bytes, SendFlags::NOSIGNAL)?,
        Write::Message => sendmsg(to, &halves, &mut nothing[0], SendFlags::NOSIGNAL)?,
        Write::Messages => {
            let [of_first, of_second] = &mut nothing;
            let mut messages = [MMsgHdr::new(&halves[..1], of_first), MMsgHdr::new(&halves[1..], of_second)];
            let count = sendmmsg(to, &mut messages, SendFlags::NOSIGNAL)?;
            messages[..count].iter().map(MMsgHdr::bytes_sent).sum()
        }
        Write::Splice => {
            let (out, into) = pipe()?;
            File::from(into).write_all(bytes)?;
            splice(out, None, to, None, bytes.len(), SpliceFlags::empty())?
        }
        Write::SendFile => {
            let mut file = tempfile::tempfile()?;
            file.write_all(bytes)?;
            file.rewind()?;
            rustix::fs::sendfile(to, file, None, bytes.len())?
        }
    })
}

/// Takes all that is there: less than the buffer holds.
fn read(from: &mut UnixStream, way: Read) -> Result<()> {
    let mut buffer = [0; 4096];
    let bytes = match way {
        Read::Plain => from.read(&mut buffer)?,
        Read::Receive => recv(from, &mut buffer, RecvFlags::empty())?.0,
        Read::Message => {
            let mut nothing = RecvAncillaryBuffer::default();
            recvmsg(from, &mut [IoSliceMut::new(&mut buffer)], &mut nothing, RecvFlags::empty())?.bytes
        }
        Read::Splice => {
            let (_out, into) = pipe()?;
            splice(from, None, into, None, buffer.len(), SpliceFlags::empty())?
        }
    };
    ensure!(bytes > 0 && bytes < buffer.len(), "{way:?} took {bytes} bytes");
    Ok(())
}

// === impl Way ===

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writer, write, half, read } = self;
        let part = if *half { "half of a" } else { "a" };
        write!(f, "{part} call that the {writer:?} writes by {write:?}, read by {read:?}")
    }
}
