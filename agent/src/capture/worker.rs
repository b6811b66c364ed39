//! The capture thread: attaches, then takes records from the ring and turns them into calls.
//!
//! A thread of its own, so that a large batch of spans in the pipeline never keeps the ring from being emptied. When the queue of
//! calls is full it waits, and the kernel side counts what no longer fits into the ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanlet_abi::event::Kind;
use tokio::sync::{mpsc, oneshot, watch};

use super::attach::Attached;
use super::clock::{Clock, SAMPLE_EVERY};
use super::decode::Decoder;
use super::dump::Dump;
use super::record::Record;
use super::{Event, Status, probe};
use crate::config;
use crate::observe::Metrics;

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

/// Calls could not be handed on: the pipeline is gone.
struct Stopped;

impl Worker {
    /// Runs until the pipeline is gone.
    pub fn run(mut self) {
        let attached = match probe::attach(&self.config) {
            Ok(probe::Outcome { attached, reasons }) => {
                tracing::info!(mode = attached.mode.label(), ?reasons, "kernel probes are attached");
                tracing::debug!(instructions = ?attached.verified_instructions(), "the verifier's work");
                self.status.send_replace(Status::Attached { mode: attached.mode, reasons });
                attached
            }
            Err(error) => {
                tracing::warn!("{error}; spans are received and forwarded without calls");
                self.status.send_replace(Status::Off { reasons: error.reasons });
                self.answer_commands();
                return;
            }
        };
        if let Err(error) = self.follow(attached) {
            tracing::error!(%error, "waiting for kernel events failed; calls are no longer seen");
            self.status.send_replace(Status::Off { reasons: vec![format!("waiting for kernel events: {error}")] });
            self.answer_commands();
        }
    }

    /// Without probes there is nothing to flush.
    fn answer_commands(&mut self) {
        while let Some(command) = self.commands.blocking_recv() {
            if let Command::Flush(answer) = command {
                let _ = answer.send(()); // whoever asked has gone
            }
        }
    }

    fn follow(&mut self, mut attached: Attached) -> io::Result<()> {
        let mut decoder = Decoder::default();
        let mut dump = Dump::open(self.config.dump_events.as_deref())?;
        let mut clock = Clock::sample();
        let mut sampled = Instant::now();
        loop {
            wait(attached.ring.as_raw_fd(), self.wake.as_raw_fd())?;
            if sampled.elapsed() >= SAMPLE_EVERY {
                clock = Clock::sample();
                sampled = Instant::now();
                let now = clock.unix_ns(Clock::monotonic_ns());
                let events = &self.events;
                decoder.tick(now, clock, &mut |event| drop(events.blocking_send(event)));
            }
            if self.drain(&mut attached, &mut decoder, &mut dump, clock).is_err() || self.events.is_closed() {
                return Ok(());
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Flush(answer) => {
                        if self.drain(&mut attached, &mut decoder, &mut dump, clock).is_err() {
                            return Ok(());
                        }
                        let _ = answer.send(()); // whoever asked has gone
                    }
                    Command::Learn { connection, stream, method } => decoder.learn(connection, stream, &method),
                }
            }
        }
    }

    /// Takes all records that are in the ring.
    fn drain(
        &self,
        attached: &mut Attached,
        decoder: &mut Decoder,
        dump: &mut Dump,
        clock: Clock,
    ) -> Result<(), Stopped> {
        let mut delivered = [0u64; Kind::COUNT];
        let mut stopped = false;
        while let Some(bytes) = attached.ring.next() {
            dump.write(&bytes);
            match Record::parse(&bytes) {
                Ok(record) => {
                    delivered[record.kind as usize] += 1;
                    let mut tell = |event| stopped |= self.events.blocking_send(event).is_err();
                    decoder.record(&record, clock, &mut tell);
                }
                Err(error) => {
                    tracing::error!(%error, "a ring record could not be read: programs and agent do not agree");
                }
            }
            if stopped {
                return Err(Stopped);
            }
        }
        for kind in Kind::ALL {
            self.metrics.events().delivered(kind.label(), delivered[kind as usize]);
        }
        self.take_over_counts(attached);
        Ok(())
    }

    /// The kernel side's own counts of what it saw and lost.
    fn take_over_counts(&self, attached: &Attached) {
        let events = self.metrics.events();
        for lost in attached.counters.lost() {
            events.lost_total(lost.kind.label(), lost.reason.label(), lost.count);
        }
        for kind in Kind::ALL {
            events.seen_total(kind.label(), attached.counters.seen(kind));
        }
    }
}

/// Waits for records or a command, at most until the clocks are to be compared again.
fn wait(ring: RawFd, wake: RawFd) -> io::Result<()> {
    let descriptor = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut descriptors = [descriptor(ring), descriptor(wake)];
    let timeout = Duration::as_millis(&SAMPLE_EVERY) as libc::c_int;
    // SAFETY: the array is valid for its two entries.
    let ready = unsafe { libc::poll(descriptors.as_mut_ptr(), 2, timeout) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    }
    if descriptors[1].revents != 0 {
        let mut count = [0u8; 8];
        // SAFETY: an eventfd is read in eight bytes; it does not block.
        unsafe { libc::read(wake, count.as_mut_ptr().cast(), count.len()) };
    }
    Ok(())
}
