//! One side of a recording as a process of its own: opens the recorded connections over a unix socket and plays its part
//! on each, watched by a conductor on standard input and output.

use std::num::NonZeroU64;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, Result};

use super::control::{Message, Schedule, SideReport, tell};
use super::recording::{Connection, Recording, Side};
use super::script::{Script, StepAction};
use super::socket::{Done, End};
use super::timeline::sleep_until_ns;

/// Connections that wait to be accepted; a recording opens few.
const BACKLOG: i32 = 128;

/// What a side process is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct SideArguments {
    pub side: Side,
    pub prefix: PathBuf,
    pub socket: PathBuf,
}

/// Plays one side to its end.
///
/// # Errors
/// When the recording cannot be read, or the other side does not do its part.
pub fn play(arguments: &SideArguments) -> Result<()> {
    let recording = Recording::find(&arguments.prefix)?;
    let opener = match arguments.side {
        Side::Client => Opener::Connect(arguments.socket.clone()),
        Side::Server => Opener::Accept(listen(&arguments.socket)?),
    };
    tell(&Message::Ready)?;
    let schedule = Schedule::from_conductor()?;

    let (sender, finished) = sync_channel(1);
    let side = arguments.side;
    spawn("open", sender.clone(), move || open_all(&opener, side, recording.connections, &schedule, &sender))?;
    tell(&Message::Done(collect(&finished)?))?;
    Ok(())
}

/// How a side comes by its connections.
#[derive(Debug)]
enum Opener {
    Connect(PathBuf),
    Accept(UnixListener),
}

impl Opener {
    fn open(&self) -> Result<UnixStream> {
        match self {
            Self::Connect(path) => UnixStream::connect(path).with_context(|| format!("connect to {}", path.display())),
            Self::Accept(listener) => Ok(listener.accept().context("accept")?.0),
        }
    }
}

/// What a thread hands to the one that waits for all; with its connection if that was not seen to close, so that it stays
/// open until the side is done.
type Outcome = Result<(Done, Option<Arc<End>>)>;

/// Opens the connections one after the other: on the server the order of `accept` is what tells them apart.
fn open_all(
    opener: &Opener,
    side: Side,
    connections: Vec<Connection>,
    schedule: &Schedule,
    sender: &SyncSender<Outcome>,
) -> Outcome {
    let mut done = Done::default();
    for connection in connections {
        sleep_until_ns(schedule.due_ns(opened_ns(&connection, side)?));
        let number = connection.number;
        let end = End::new(side, connection, opener.open()?, schedule.clone())?;
        done.report.connections += 1;
        let (reader, writer) = (end.clone(), end);
        spawn(&format!("read {number}"), sender.clone(), move || Ok((reader.read_all()?, None)))?;
        spawn(&format!("write {number}"), sender.clone(), move || {
            let (done, closed) = writer.write_all()?;
            Ok((done, (!closed).then_some(writer)))
        })?;
    }
    Ok((done, None))
}

/// Recorded time of `connect` or `accept`.
fn opened_ns(connection: &Connection, side: Side) -> Result<u64> {
    let first = Script::new(connection, side)?.next().transpose()?;
    let opened = first.filter(|step| step.action == StepAction::Open);
    Ok(opened.map_or(connection.opened_ns, |step| step.due_ns))
}

fn spawn(name: &str, sender: SyncSender<Outcome>, work: impl FnOnce() -> Outcome + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Sleeps of this thread end when they should, not up to 50 µs later.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let _ = sender.send(work()); // the receiver is gone after an error, and the process with it
    })?;
    Ok(())
}

/// Waits for all threads or the first error.
fn collect(finished: &Receiver<Outcome>) -> Result<SideReport> {
    let mut total = SideReport::default();
    let mut late_us = Vec::new();
    let mut open = Vec::new();
    while let Ok(outcome) = finished.recv() {
        let (done, end) = outcome?;
        total.connections += done.report.connections;
        total.reads += done.report.reads;
        total.writes += done.report.writes;
        total.bytes_read += done.report.bytes_read;
        total.bytes_written += done.report.bytes_written;
        total.merged_reads += done.report.merged_reads;
        total.shortened_reads += done.report.shortened_reads;
        late_us.extend(done.late_us);
        open.extend(end);
    }
    late_us.sort_unstable();
    let quantile = |part: f64| late_us.get((late_us.len() as f64 * part) as usize).copied().map_or(0, u64::from);
    total.late_p50_us = quantile(0.5);
    total.late_p99_us = quantile(0.99);
    total.late_max_us = late_us.last().copied().map_or(0, u64::from);
    Ok(total)
}

fn listen(path: &Path) -> Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let listening = || -> rustix::io::Result<_> {
        let fd = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        bind(&fd, &SocketAddrUnix::new(path)?)?;
        listen(&fd, BACKLOG)?;
        Ok(fd)
    };
    Ok(listening().with_context(|| format!("listen on {}", path.display()))?.into())
}
