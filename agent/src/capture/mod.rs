//! Stage `capture`: the kernel's view of the gRPC calls on the node's unix sockets.
//!
//! ```text
//!  probe ─► ladder ─► attach, tasks     which programs, attached how
//!                        │
//!        ring ─► worker ─► record ─► decode ─► order ─► connection ─► stream ─► CallEvent ─[queue]─► pipeline
//!                                       │               (HPACK, gaps)  (points)                │
//!                                       └────► execs ────────────────────────► Exec ───────────┘
//! ```

pub mod attach;
mod cast;
pub mod clock;
mod connection;
pub mod counters;
mod decode;
mod direction;
mod dump;
mod ends;
pub mod execs;
mod gaps;
mod gone;
mod governor;
mod guess;
pub mod identity;
pub mod ladder;
pub mod layout;
pub mod limits;
mod mapping;
mod names;
pub mod offline;
mod old;
mod order;
pub mod paths;
mod preemption;
pub mod probe;
mod process;
mod reads;
pub mod record;
mod runs;
mod skipped;
mod stream;
mod subject;
mod system_calls;
mod tasks;
mod totals;
mod worker;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use self::limits::COMMAND_QUEUE;
use self::worker::{Command, Worker};
use crate::call::CallEvent;
use crate::config;
use crate::exec::Exec;
use crate::observe::Metrics;

/// How the kernel programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    Fentry,
    Kprobe,
    /// Tracepoints of sockets.
    Tracepoint,
    /// Tracepoints of system calls, where sockets have none.
    SystemCalls,
}

/// What capture tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Call(CallEvent),
    /// A process that the runtime started: when it is executed, and when it ends.
    Exec(Box<Exec>),
}

/// Where capture stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Starting,
    Attached {
        mode: Mode,
        reasons: Vec<String>,
        /// Names of the programs, with the instructions that the verifier went through where the kernel tells (5.16 and newer).
        programs: Vec<(&'static str, Option<u32>)>,
    },
    /// Nothing is attached; the reasons say why.
    Off {
        reasons: Vec<String>,
    },
}

/// Why capture could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("creating an eventfd")]
    Wake(#[source] io::Error),
    #[error("starting the capture thread")]
    Thread(#[source] io::Error),
}

/// The running stage. Dropping it detaches the programs.
#[derive(Debug)]
pub struct Capture {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    status: watch::Receiver<Status>,
}

/// Starts the capture thread, which tells what it sees to `events` until nobody listens there. It attaches in its own time;
/// [`Capture::status`] tells when.
///
/// # Errors
/// When the thread cannot be made.
pub fn start(config: &config::Capture, metrics: Metrics, events: mpsc::Sender<Event>) -> Result<Capture, StartError> {
    let (commands, commands_out) = mpsc::channel(COMMAND_QUEUE);
    let (status_in, status) = watch::channel(Status::Starting);
    let wake = Arc::new(eventfd().map_err(StartError::Wake)?);
    let worker = Worker {
        config: config.clone(),
        events,
        commands: commands_out,
        wake: Arc::clone(&wake),
        status: status_in,
        metrics,
    };
    let thread = std::thread::Builder::new().name("capture".to_owned());
    thread.spawn(move || worker.run()).map_err(StartError::Thread)?;
    Ok(Capture { commands, wake, status })
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

// === impl Capture ===

impl Capture {
    /// Where capture stands, and news of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Takes in what the ring and `queue`, the other end of `events`, hold now: a span may follow its call by a few
    /// milliseconds. That is no wait.
    pub async fn flush(&self, queue: &mut mpsc::Receiver<Event>, mut take: impl FnMut(Event)) {
        let (answer, mut answered) = oneshot::channel();
        let attached = matches!(*self.status.borrow(), Status::Attached { .. });
        if attached && self.commands.try_send(Command::Flush(answer)).is_ok() {
            self.wake();
            loop {
                tokio::select! {
                    biased; // the answer first: under a flood of events the queue is never empty
                    _ = &mut answered => break,
                    Some(event) = queue.recv() => take(event), // the thread may wait for room there
                }
            }
        }
        for _ in 0..queue.len() {
            match queue.try_recv() {
                Ok(event) => take(event),
                Err(_) => return,
            }
        }
    }

    /// A joined span told the method of a call. Learnt names only add to what is known: when commands pile up it is dropped.
    pub fn learn(&self, connection: u64, stream: u32, method: Arc<str>) {
        if self.commands.try_send(Command::Learn { connection, stream, method }).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: an eventfd is written in eight bytes; it cannot block, and a full one wakes the thread as well.
        unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.wake();
    }
}

// === impl Mode ===

impl Mode {
    /// The name in config, logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint | Self::SystemCalls => "tracepoint",
        }
    }

    /// The name in reasons, which tells all of them apart.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoints of sockets",
            Self::SystemCalls => "tracepoints of system calls",
            Self::Fentry | Self::Kprobe => self.label(),
        }
    }
}
