//! The ways in which programs write to a socket and read from it: what the probes do not follow is counted as such, nothing else is,
//! and the calls behind it are told exactly again.

use std::fmt;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    MMsgHdr, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, send, sendmmsg, sendmsg,
};
use rustix::pipe::{SpliceFlags, pipe, splice};
use serde_json::json;
use spanlet::api::CallEntry;

use crate::agent::{self, Agent, Ports};
use crate::http2;

const TOLD_WITHIN: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Between two calls, so that what is read of the second cannot be taken for the first's.
const IDLE: Duration = Duration::from_millis(20);
/// A reader that is to wait does so by then.
const WAITS_AFTER: Duration = Duration::from_millis(1);
/// The agent's clock is a sample of each second.
const CLOCK_SLACK_NS: u64 = 2_000_000;

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
    let mut config = agent::config_of_own_connections(&ports, &socket);
    config["capture"]["mode"] = json!(capture_mode);
    let mut agent = Agent::start(directory.path(), ports, &config)?;
    let mode = agent.wait_until_attached().await?;
    let of_system_calls = agent.status().await?.capture.programs.keys().any(|name| name.starts_with("sys_"));
    let mut connection = Connection::open(&socket)?;
    for way in ways() {
        let losses = losses(&mode, of_system_calls, way.write);
        check_way(&agent, &mut connection, way, losses).await.with_context(|| format!("{mode} mode, {way}"))?;
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

/// How often the probes of a mode lose track by what is written in a way: once for each write, or message, that they do not follow.
fn losses(mode: &str, of_system_calls: bool, write: Write) -> u64 {
    match write {
        Write::Plain | Write::Vector | Write::Send | Write::Message => 0,
        Write::Messages if mode != "tracepoint" => 0,
        Write::Messages if of_system_calls => 1,
        Write::Messages => 2,
        Write::Splice | Write::SendFile => 1,
    }
}

async fn check_way(agent: &Agent, connection: &mut Connection, way: Way, losses: u64) -> Result<()> {
    let lost_before = times_lost(agent).await?;
    let made = [connection.call(Some(way))?, connection.call(None)?, connection.call(None)?];
    let [first, _, last] = made;
    let behind = told(agent, last).await?;
    ensure!(is_exact(&behind) && is_whole(&behind), "two calls later: {behind:?}");
    let lost = times_lost(agent).await? - lost_before;
    ensure!(lost == losses, "track was lost {lost} times, not {losses}");
    // What is read by splice is told as read too late.
    for Made { number, took_ns } in made.into_iter().filter(|_| way.read != Read::Splice) {
        let call = agent.call(&http2::traceparent(number)).await?;
        let sum_ns: u64 = call.iter().flat_map(phases).flatten().sum();
        ensure!(sum_ns <= took_ns + CLOCK_SLACK_NS, "a call of {took_ns} ns: {call:?}");
    }
    let call = agent.call(&http2::traceparent(first.number)).await?;
    if losses > 0 {
        // It stays open, is told in part or not at all, by what of it was not walked.
        let is_told_in_part = |call: &CallEntry| call.lost_track && !is_whole(call) && call.status.unwrap_or(0) == 0;
        ensure!(call.as_ref().is_none_or(|call| !call.is_over() || is_told_in_part(call)), "{call:?}");
        return Ok(());
    }
    let call = call.context("the call is not told")?;
    ensure!(is_exact(&call) && (way.read == Read::Splice || is_whole(&call)), "{call:?}");
    Ok(())
}

/// As it was made.
fn is_exact(call: &CallEntry) -> bool {
    call.method.as_deref() == Some(http2::METHOD) && call.status == Some(0) && call.is_over() && !call.lost_track
}

fn is_whole(call: &CallEntry) -> bool {
    phases(call).iter().all(Option::is_some)
}

fn phases(call: &CallEntry) -> [Option<u64>; 4] {
    [call.request_wait_ns, call.handling_ns, call.response_send_ns, call.response_wait_ns]
}

async fn times_lost(agent: &Agent) -> Result<u64> {
    Ok(agent.status().await?.events.delivered.get("lost_track").copied().unwrap_or(0))
}

/// Waits until a call is told to be over.
async fn told(agent: &Agent, Made { number, .. }: Made) -> Result<CallEntry> {
    let deadline = tokio::time::Instant::now() + TOLD_WITHIN;
    loop {
        let call = agent.call(&http2::traceparent(number)).await?;
        if let Some(call) = call.as_ref().filter(|call| call.is_over()) {
            return Ok(call.clone());
        }
        ensure!(tokio::time::Instant::now() < deadline, "two calls later, after {TOLD_WITHIN:?}: {call:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A call that was made, and how long it took its client.
#[derive(Debug, Clone, Copy)]
struct Made {
    number: u32,
    took_ns: u64,
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
        let (mut server, _) = listener.accept()?;
        let preface = http2::preface();
        client.write_all(&preface)?;
        read(&mut server, preface.len(), Read::Plain)?;
        Ok(Self { client, server, calls: 0 })
    }

    /// Makes a call, in this way or as usual.
    fn call(&mut self, way: Option<Way>) -> Result<Made> {
        thread::sleep(IDLE);
        let since = Instant::now();
        let number = self.calls;
        self.calls += 1;
        let stream = 2 * number + 1;
        let of = |writer| way.filter(|way| way.writer == writer);
        let request = http2::request(stream, &http2::traceparent(number));
        pass(&mut self.client, &mut self.server, &request, of(Writer::Client))?;
        pass(&mut self.server, &mut self.client, &http2::answer(stream), of(Writer::Server))?;
        Ok(Made { number, took_ns: since.elapsed().as_nanos() as u64 })
    }
}

fn pass(from: &mut UnixStream, to: &mut UnixStream, bytes: &[u8], way: Option<Way>) -> Result<()> {
    let Some(way) = way else {
        from.write_all(bytes)?;
        return read(to, bytes.len(), Read::Plain);
    };
    let (first, second) = bytes.split_at(if way.half { bytes.len() / 2 } else { 0 });
    thread::scope(|scope| {
        // As a rule the reader waits, and is woken while the write is under way. How much splice has taken is found out at a rest.
        let reader = (way.read != Read::Splice).then(|| scope.spawn(|| read(to, bytes.len(), way.read)));
        thread::sleep(WAITS_AFTER);
        from.write_all(first)?;
        let written = write(from, second, way.write).with_context(|| format!("{:?}", way.write))?;
        ensure!(written == second.len(), "{:?} took {written} of {} bytes", way.write, second.len());
        reader.map_or(Ok(()), |reader| reader.join().expect("a reader does not panic"))
    })?;
    if way.read == Read::Splice { read(to, bytes.len(), way.read) } else { Ok(()) }
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

/// Takes so many bytes, less than the buffer holds.
fn read(from: &mut UnixStream, bytes: usize, way: Read) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let taken = read_once(from, way)?;
        ensure!(taken > 0 && taken <= left, "{way:?} took {taken} of {left} bytes");
        left -= taken;
    }
    Ok(())
}

fn read_once(from: &mut UnixStream, way: Read) -> Result<usize> {
    let mut buffer = [0; 4096];
    Ok(match way {
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
    })
}

// === impl Way ===

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writer, write, half, read } = self;
        let part = if *half { "half of a" } else { "a" };
        write!(f, "{part} call that the {writer:?} writes by {write:?}, read by {read:?}")
    }
}
