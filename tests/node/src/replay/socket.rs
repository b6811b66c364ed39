//! One end of one connection: a thread that reads and a thread that writes, each call at its recorded time and size.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::control::{Message, Schedule, SideReport, tell};
use super::events::Part;
use super::recording::{Bytes, Connection, Side};
use super::script::{Script, Step, StepAction};
use super::timeline::{monotonic_ns, sleep_until_ns};

/// How long a step may wait for what the other side should have done by then.
const STUCK: Duration = Duration::from_secs(30);
/// How long a wait for readiness lasts before the reasons for it are looked at again.
const POLL: Duration = Duration::from_millis(100);
/// Pause between looks at a message that has not come whole.
const PARTIAL_NS: u64 = 20_000;

/// What both threads of an end share.
#[derive(Debug)]
pub(super) struct End {
    pub(super) side: Side,
    pub(super) connection: Connection,
    pub(super) stream: UnixStream,
    pub(super) schedule: Schedule,
    read: Mutex<u64>,
    read_more: Condvar,
}

/// What one thread did, and how late each of its steps was.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) report: SideReport,
    pub(super) late_us: Vec<u32>,
}

impl End {
    pub(super) fn new(side: Side, connection: Connection, stream: UnixStream, schedule: Schedule) -> Result<Arc<Self>> {
        stream.set_nonblocking(true)?; // as Go's are
        Ok(Arc::new(Self { side, connection, stream, schedule, read: Mutex::new(0), read_more: Condvar::new() }))
    }

    /// Reads what was read. A server whose end was not recorded goes on until its client closes.
    pub(super) fn read_all(&self) -> Result<Done> {
        let mut ended = false;
        let expected = self.connection.bytes(self.side.receives())?;
        let mut done = Done::default();
        let mut buffers = Buffers::default();
        for step in Script::new(&self.connection, self.side)? {
            let Step { due_ns, action } = step?;
            match action {
                StepAction::Read(part) => {
                    sleep_until_ns(self.schedule.due_ns(due_ns));
                    self.read_part(part, &expected, &mut buffers, &mut done)?;
                    done.step(self.schedule.due_ns(due_ns));
                    *self.read.lock().expect("no thread panics while it holds the lock") = buffers.position;
                    self.read_more.notify_all();
                }
                StepAction::EndOfStream => {
                    sleep_until_ns(self.schedule.due_ns(due_ns));
                    self.read_end()?;
                    ended = true;
                }
                StepAction::Close => ended = true,
                StepAction::Open | StepAction::Write { .. } => {}
            }
        }
        if self.side == Side::Server && !ended {
            self.read_end()?;
        }
        Ok(done)
    }

    /// Writes what was written; returns at the recorded close, and whether there was one.
    pub(super) fn write_all(&self) -> Result<(Done, bool)> {
        let mut closed = false;
        let content = self.connection.bytes(self.side.sends())?;
        let mut done = Done::default();
        let mut buffer = Vec::new();
        let mut position = 0;
        let mut holds = self.side == Side::Client && self.connection.number == 1;
        for step in Script::new(&self.connection, self.side)? {
            let Step { due_ns, action } = step?;
            if holds && self.schedule.is_behind_hold(due_ns) && matches!(action, StepAction::Write { .. }) {
                tell(&Message::Holding)?;
                holds = false;
            }
            match action {
                StepAction::Write { part, after_read } => {
                    sleep_until_ns(self.schedule.due_ns(due_ns));
                    self.wait_until_read(after_read)?;
                    done.step(self.schedule.due_ns(due_ns));
                    self.write_part(part, &content, &mut buffer, &mut position, &mut done)?;
                }
                StepAction::Close => {
                    sleep_until_ns(self.schedule.due_ns(due_ns));
                    closed = true;
                }
                StepAction::Open | StepAction::Read(_) | StepAction::EndOfStream => {}
            }
        }
        if holds && self.schedule.is_holding() {
            tell(&Message::Holding)?;
        }
        Ok((done, closed))
    }

    /// One `read` of the recorded size, once that much is there. If more is, it asks for no more than was recorded; if more
    /// comes between the look and the read, the next reads have less to do.
    fn read_part(&self, part: Part, expected: &Bytes, buffers: &mut Buffers, done: &mut Done) -> Result<()> {
        let wanted = part.end().saturating_sub(buffers.position);
        if wanted == 0 {
            done.report.merged_reads += 1;
            return Ok(());
        }
        let available = self.wait_for_bytes(part, wanted)?;
        let ask = if available > wanted { wanted } else { part.requested };
        done.report.shortened_reads += u64::from(ask < part.requested);
        buffers.received.resize(ask as usize, 0);
        let read = rustix::io::read(&self.stream, &mut buffers.received).with_context(|| self.doing("read", part))?;
        buffers.expected.resize(read, 0);
        expected.read_at(&mut buffers.expected, buffers.position)?;
        ensure!(
            buffers.received[..read] == buffers.expected,
            "{}: other bytes than recorded",
            self.doing("read", part)
        );
        buffers.position += read as u64;
        done.report.reads += 1;
        done.report.bytes_read += read as u64;
        Ok(())
    }

    /// Waits until the queue holds what is wanted; returns how much it holds.
    fn wait_for_bytes(&self, part: Part, wanted: u64) -> Result<u64> {
        let mut waited = Waited::new(&self.schedule);
        loop {
            let available = rustix::io::ioctl_fionread(&self.stream)?;
            if available >= wanted {
                return Ok(available);
            }
            if available > 0 {
                sleep_until_ns(monotonic_ns() + PARTIAL_NS);
            } else if self.poll(PollFlags::IN)?.contains(PollFlags::HUP)
                && rustix::io::ioctl_fionread(&self.stream)? == 0
            {
                bail!("{}: the other side has closed", self.doing("read", part));
            }
            if waited.too_long() {
                bail!("{}: only {available} bytes came in {STUCK:?}", self.doing("read", part));
            }
        }
    }

    fn wait_until_read(&self, count: u64) -> Result<()> {
        let mut waited = Waited::new(&self.schedule);
        let mut read = self.read.lock().expect("no thread panics while it holds the lock");
        while *read < count {
            read = self.read_more.wait_timeout(read, POLL).expect("no thread panics while it holds the lock").0;
            if waited.too_long() {
                bail!("{}: a write waits for byte {count} to be read, but only {read} were", self.name());
            }
        }
        Ok(())
    }

    /// One `write` of the recorded size. What the kernel does not take at once follows as it makes room, so that the stream
    /// is where it was; what it took beyond that earlier is not written again.
    fn write_part(
        &self,
        part: Part,
        content: &Bytes,
        buffer: &mut Vec<u8>,
        position: &mut u64,
        done: &mut Done,
    ) -> Result<()> {
        let mut waited = Waited::new(&self.schedule);
        let mut asked_until = part.offset + part.requested;
        while *position < part.end() {
            buffer.resize((asked_until - *position) as usize, 0);
            content.read_at(buffer, *position)?;
            match rustix::io::write(&self.stream, buffer) {
                Ok(written) => {
                    *position += written as u64;
                    done.report.bytes_written += written as u64;
                }
                Err(Errno::AGAIN) => {
                    self.poll(PollFlags::OUT)?;
                }
                Err(error) => return Err(error).with_context(|| self.doing("write", part)),
            }
            asked_until = part.end();
            if waited.too_long() {
                bail!("{}: no room in {STUCK:?}", self.doing("write", part));
            }
        }
        done.report.writes += 1;
        Ok(())
    }

    /// A `read` that returns 0; the other side closes when it is done, which may be long after.
    fn read_end(&self) -> Result<()> {
        loop {
            self.poll(PollFlags::IN)?;
            match rustix::io::read(&self.stream, &mut [0; 1]) {
                Ok(0) | Err(Errno::CONNRESET) => return Ok(()),
                Ok(_) => bail!("{}: bytes after the recorded end", self.name()),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error).with_context(|| format!("{}: read the end", self.name())),
            }
        }
    }

    fn poll(&self, flags: PollFlags) -> Result<PollFlags> {
        let mut fds = [PollFd::new(&self.stream, flags)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(POLL.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(fds[0].revents()),
            Err(error) => Err(error).context("poll the socket"),
        }
    }

    fn name(&self) -> String {
        format!("connection {} {}", self.connection.number, self.side.name())
    }

    fn doing(&self, call: &str, part: Part) -> String {
        format!("{}: {call} {} bytes at {}", self.name(), part.length, part.offset)
    }
}

impl Done {
    fn step(&mut self, due_ns: u64) {
        let late_us = monotonic_ns().saturating_sub(due_ns) / 1000;
        self.late_us.push(u32::try_from(late_us).unwrap_or(u32::MAX));
    }
}

/// What the reader holds from one read to the next.
#[derive(Debug, Default)]
struct Buffers {
    received: Vec<u8>,
    expected: Vec<u8>,
    /// Bytes read so far.
    position: u64,
}

/// How long a step has waited, standing still not counted.
struct Waited<'a> {
    schedule: &'a Schedule,
    since_ns: u64,
}

impl<'a> Waited<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        Self { schedule, since_ns: monotonic_ns() }
    }

    fn too_long(&mut self) -> bool {
        if self.schedule.is_holding() {
            self.since_ns = monotonic_ns();
        }
        monotonic_ns() - self.since_ns > STUCK.as_nanos() as u64
    }
}
