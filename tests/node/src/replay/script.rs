//! What one end of a connection has to do and when: taken from its own events, or, for a server that was not recorded,
//! mirrored from its client's.

use std::collections::VecDeque;

use anyhow::Result;

use super::events::{Action, Event, Events, Part};
use super::recording::{Connection, Side};

/// How much earlier than its client a mirrored server acts when it writes, and how much later when it reads. Recorded
/// servers read a median 0.1 ms after the client's write; shorter than any answer takes.
const MIRROR_LAG_NS: u64 = 20_000;

/// What grpc-go asks for in a read.
const GO_READ_BUFFER_BYTES: u64 = 32 << 10;

/// A step of one end. Times are those of the recording, Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// When it is due: a write is entered then, a read returns then.
    pub due_ns: u64,
    pub action: StepAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepAction {
    /// `connect` or `accept`.
    Open,
    Read(Part),
    Write {
        part: Part,
        /// Bytes of the other direction that this end had read before: the write may answer them.
        after_read: u64,
    },
    EndOfStream,
    Close,
}

/// The steps of one end, in the order of its events.
#[derive(Debug)]
pub(super) struct Script {
    events: Events,
    mirrored: bool,
    /// Bytes that this end will have read, and when; those not yet known to be before the next write.
    reads: VecDeque<(u64, u64)>,
    read: u64,
}

impl Script {
    pub(super) fn new(connection: &Connection, side: Side) -> Result<Self> {
        let mirrored = side == Side::Server && !connection.has_server_events;
        let events = connection.events(if mirrored { Side::Client } else { side })?;
        Ok(Self { events, mirrored, reads: VecDeque::new(), read: 0 })
    }

    fn step(&mut self, event: Event) -> Step {
        if self.mirrored { self.mirror(event) } else { self.own(event) }
    }

    fn own(&mut self, event: Event) -> Step {
        let (start_ns, end_ns) = (event.start_ns, event.end_ns);
        match event.action {
            Action::Connect | Action::Accept => Step { due_ns: start_ns, action: StepAction::Open },
            Action::Read(part) => Step { due_ns: end_ns, action: self.read(part, end_ns) },
            Action::Write(part) => Step { due_ns: start_ns, action: self.write(part, start_ns) },
            Action::EndOfStream => Step { due_ns: end_ns, action: StepAction::EndOfStream },
            Action::Close => Step { due_ns: start_ns, action: StepAction::Close },
        }
    }

    /// The server's counterpart of a client's event: it reads what the client wrote, and writes what the client read. A read may
    /// have begun long before its bytes came, even before the request was written that they answer; only its end tells.
    fn mirror(&mut self, event: Event) -> Step {
        let (before_ns, after_ns) = (event.end_ns - MIRROR_LAG_NS, event.start_ns + MIRROR_LAG_NS);
        match event.action {
            Action::Connect | Action::Accept => Step { due_ns: after_ns, action: StepAction::Open },
            Action::Write(part) => {
                let asked = Part { requested: part.requested.max(GO_READ_BUFFER_BYTES), ..part };
                Step { due_ns: after_ns, action: self.read(asked, event.start_ns) }
            }
            Action::Read(part) => {
                let whole = Part { requested: part.length, ..part };
                Step { due_ns: before_ns, action: self.write(whole, event.end_ns) }
            }
            Action::EndOfStream => Step { due_ns: before_ns, action: StepAction::Close },
            Action::Close => Step { due_ns: after_ns, action: StepAction::EndOfStream },
        }
    }

    fn read(&mut self, part: Part, known_ns: u64) -> StepAction {
        self.reads.push_back((known_ns, part.end()));
        StepAction::Read(part)
    }

    /// Reads that ended in the same microsecond are not known to have come first.
    fn write(&mut self, part: Part, at_ns: u64) -> StepAction {
        while let Some((_, end)) = self.reads.pop_front_if(|(ns, _)| *ns < at_ns) {
            self.read = end;
        }
        StepAction::Write { part, after_read: self.read }
    }
}

impl Iterator for Script {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.events.next()?;
        Some(event.map(|event| self.step(event)))
    }
}
