//! The capture thread: attaches, then takes records from the ring and turns them into calls.
//!
//! A thread of its own, so that a large batch of spans in the pipeline never keeps the ring from being emptied. When the queue of
//! calls is full it waits, and the kernel side counts what no longer fits into the ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanlet_abi::event::Kind;
use spanlet_abi::limits::LOOK_EVERY_MS;
use tokio::sync::{mpsc, oneshot, watch};

use super::attach::Attached;
use super::clock::{Clock, SAMPLE_EVERY};
use super::decode::Decoder;
use super::dump::Dump;
use super::gone::Gone;
use super::governor::{Governor, Rests};
use super::record::records;
use super::totals::Totals;
use super::{Event, Status, probe};
use crate::config;
use crate::observe::Metrics;

/// The programs wake the thread only when the ring fills up.
const LOOK_EVERY: Duration = Duration::from_millis(LOOK_EVERY_MS as u64);

/// Runs of programs that are under way when these are detached take less than a millisecond.
const RUNS_END_WITHIN: Duration = Duration::from_millis(20);

/// What the pipeline asks of the thread.
#[derive(Debug)]
pub enum Command {
    /// Take in what the ring holds now, then answer.
    Flush(oneshot::Sender<()>),
    /// A joined span told a method.
    Learn { connection: u64, stream: u32, method: Arc<str> },
}

/// Everything the thread needs.
pub struct Worker {
    pub config: config::Capture,
    pub events: mpsc::Sender<Event>,
    pub commands: mpsc::Receiver<Command>,
    /// Wakes the thread for commands and for the end.
    pub wake: Arc<OwnedFd>,
    pub status: watch::Sender<Status>,
    pub metrics: Metrics,
}

/// Why the programs are no longer followed.
enum End {
    /// The pipeline is gone.
    Stopped,
    /// They took this part of a core.
    TooExpensive(f64),
}

/// Calls could not be handed on: the pipeline is gone.
struct Stopped;

impl Worker {
    /// Runs until the pipeline is gone.
    pub fn run(mut self) {
        let mut totals = Totals::default();
        let mut rests = Rests::new();
        let mut decoder = Decoder::default();
        while let Some(attached) = self.attach() {
            let since = Instant::now();
            match self.follow(attached, &mut totals, &mut decoder) {
                Ok(End::Stopped) => return,
                Ok(End::TooExpensive(ratio)) => {
                    let rest = rests.after(since.elapsed());
                    self.tell_rest(ratio, rest);
                    if self.rest(rest).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "waiting for kernel events failed; calls are no longer seen");
                    self.status
                        .send_replace(Status::Off { reasons: vec![format!("waiting for kernel events: {error}")] });
                    break;
                }
            }
        }
        self.answer_commands();
    }

    fn attach(&self) -> Option<Attached> {
        match probe::attach(&self.config) {
            Ok(probe::Outcome { attached, reasons }) => {
                tracing::info!(mode = attached.mode.label(), ?reasons, "kernel probes are attached");
                let programs = attached.verified_instructions();
                self.status.send_replace(Status::Attached { mode: attached.mode, reasons, programs });
                Some(attached)
            }
            Err(error) => {
                tracing::warn!("{error}; spans are received and forwarded without calls");
                self.status.send_replace(Status::Off { reasons: error.reasons });
                None
            }
        }
    }

    fn tell_rest(&self, ratio: f64, rest: Duration) {
        let reason = format!(
            "the kernel programs took {:.2} % of a core over 10 s, more than capture.max_cpu_ratio allows: detached, tried \
             again in {} min",
            100.0 * ratio,
            rest.as_secs() / 60
        );
        tracing::warn!("{reason}; spans are received and forwarded without calls");
        self.status.send_replace(Status::Off { reasons: vec![reason] });
    }

    /// Waits, and goes on answering commands, which find nothing to do.
    fn rest(&mut self, rest: Duration) -> Result<(), Stopped> {
        let end = Instant::now() + rest;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if wait(&[self.wake.as_raw_fd()], left).is_err() || self.events.is_closed() {
                return Err(Stopped);
            }
            while let Ok(command) = self.commands.try_recv() {
                answer(command);
            }
        }
        Ok(())
    }

    /// Without probes there is nothing to flush.
    fn answer_commands(&mut self) {
        while let Some(command) = self.commands.blocking_recv() {
            answer(command);
        }
    }

    fn follow(&mut self, mut attached: Attached, totals: &mut Totals, decoder: &mut Decoder) -> io::Result<End> {
        let mut dump = Dump::open(self.config.dump_events.as_deref())?;
        let mut clock = Clock::sample();
        let mut sampled = Instant::now();
        let mut governor = Governor::new(self.config.max_cpu_ratio, Clock::monotonic_ns());
        let mut gone = Gone::new(Clock::monotonic_ns());
        loop {
            // Not before the ring was emptied: a wake-up for what is in it then would be the last one.
            attached.counters.waits();
            wait(&[self.wake.as_raw_fd(), attached.ring.as_raw_fd()], LOOK_EVERY)?;
            let is_due = sampled.elapsed() >= SAMPLE_EVERY;
            if is_due {
                clock = Clock::sample();
                sampled = Instant::now();
            }
            if self.drain(&mut attached, decoder, &mut dump, clock, totals).is_err() || self.events.is_closed() {
                return Ok(End::Stopped);
            }
            if is_due {
                let cost_ns = self.tick(&mut attached, decoder, &mut gone, clock, totals);
                if let Some(ratio) = governor.exceeded(Clock::monotonic_ns(), cost_ns) {
                    attached.detach();
                    std::thread::sleep(RUNS_END_WITHIN);
                    if self.drain(&mut attached, decoder, &mut dump, clock, totals).is_err() {
                        return Ok(End::Stopped);
                    }
                    self.abandon(&attached, decoder, clock, totals);
                    return Ok(End::TooExpensive(ratio));
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Flush(answer) => {
                        if self.drain(&mut attached, decoder, &mut dump, clock, totals).is_err() {
                            return Ok(End::Stopped);
                        }
                        let _ = answer.send(()); // whoever asked has gone
                    }
                    Command::Learn { connection, stream, method } => decoder.learn(connection, stream, &method),
                }
            }
        }
    }

    /// What is done every second or so; returns what the programs have cost since they were attached, in nanoseconds.
    fn tick(
        &self,
        attached: &mut Attached,
        decoder: &mut Decoder,
        gone: &mut Gone,
        clock: Clock,
        totals: &Totals,
    ) -> u64 {
        let now_ns = Clock::monotonic_ns();
        let mut tell = |event| drop(self.events.blocking_send(event));
        if attached.has_lost_more() {
            decoder.doubt(now_ns);
        }
        decoder.tick(now_ns, clock, &mut tell);
        let lost = attached.counters.lost().iter().any(|lost| lost.kind == Kind::Closed);
        for connection in gone.look(now_ns, decoder.connections()) {
            decoder.closed_unseen(connection, lost, clock.unix_ns(now_ns), clock, &mut tell);
        }
        for (cause, count) in decoder.gaps().by_cause() {
            self.metrics.programs().gaps(cause, count);
        }
        totals.tell_cost(attached, &self.metrics)
    }

    /// The programs are detached: open calls end here, and what was counted is kept.
    fn abandon(&self, attached: &Attached, decoder: &mut Decoder, clock: Clock, totals: &mut Totals) {
        let now = clock.unix_ns(Clock::monotonic_ns());
        decoder.abandon(now, clock, &mut |event| drop(self.events.blocking_send(event)));
        totals.keep(attached);
    }

    /// Takes all records that are in the ring.
    fn drain(
        &self,
        attached: &mut Attached,
        decoder: &mut Decoder,
        dump: &mut Dump,
        clock: Clock,
        totals: &Totals,
    ) -> Result<(), Stopped> {
        let mut delivered = [0u64; Kind::COUNT];
        let mut stopped = false;
        while let Some(bytes) = attached.ring.next() {
            dump.write(&bytes);
            for record in records(&bytes) {
                match record {
                    Ok(record) => {
                        delivered[record.kind as usize] += 1;
                        let mut tell = |event| stopped |= self.events.blocking_send(event).is_err();
                        decoder.record(&record, clock, &mut tell);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a ring record could not be read: programs and agent do not agree");
                    }
                }
            }
            if stopped {
                return Err(Stopped);
            }
        }
        for kind in Kind::ALL {
            self.metrics.events().delivered(kind.label(), delivered[kind as usize]);
        }
        totals.tell(attached, &self.metrics);
        Ok(())
    }
}

/// A command that comes while nothing is attached.
fn answer(command: Command) {
    if let Command::Flush(answer) = command {
        let _ = answer.send(()); // whoever asked has gone
    }
}

/// Waits until one of the descriptors is readable, at most so long. The first is the eventfd, which is emptied.
fn wait(descriptors: &[RawFd], at_most: Duration) -> io::Result<()> {
    let descriptor = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
    let mut polled: Vec<libc::pollfd> = descriptors.iter().map(descriptor).collect();
    let timeout = libc::c_int::try_from(at_most.as_millis() + 1).unwrap_or(libc::c_int::MAX);
    // SAFETY: the vector is valid for its entries.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    }
    if polled[0].revents != 0 {
        let mut count = [0u8; 8];
        // SAFETY: an eventfd is read in eight bytes; it does not block.
        unsafe { libc::read(polled[0].fd, count.as_mut_ptr().cast(), count.len()) };
    }
    Ok(())
}
