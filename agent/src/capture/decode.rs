//! From ring records to calls and execs: every watched connection by its id.

use std::collections::HashMap;
use std::sync::Arc;

use spanlet_abi::event::{Head, Kind, SERVER};

use super::Event;
use super::clock::Clock;
use super::connection::{Connection, Sink};
use super::execs::Execs;
use super::gaps::Gaps;
use super::limits::MAX_CONNECTIONS;
use super::order::Ordered;
use super::process::Containers;
use super::record::Record;
use crate::call::{Socket, SocketKind};

/// The state of all connections.
#[derive(Debug, Default)]
pub struct Decoder {
    connections: HashMap<u64, Ordered>,
    containers: Containers,
    execs: Execs,
    /// Of connections that are over, and of what belongs to none.
    gaps: Gaps,
}

/// How much a decoder keeps, for holding it against [`super::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    pub connections: usize,
    /// Processes that run.
    pub execs: usize,
    /// Open calls of the connection that has most; so are the next ones.
    pub streams: usize,
    /// Points that wait for reads, both directions.
    pub waiting_points: usize,
    /// Records of a server that wait for their call to be told of.
    pub early: usize,
    /// Calls without a name whose spans may still tell it.
    pub unnamed: usize,
    /// Octets of header frames under way, both directions.
    pub header_bytes: usize,
    /// Bytes of request fields of the call that has most.
    pub field_bytes: usize,
}

impl Decoder {
    /// With another way to find containers than this machine's `/proc`.
    pub fn with_containers(containers: Containers) -> Self {
        Self { containers, ..Self::default() }
    }

    /// Takes in one record and tells of the calls and execs that it starts or finishes.
    pub fn record(&mut self, record: &Record<'_>, clock: Clock, tell: &mut dyn FnMut(Event)) {
        match record.kind {
            Kind::Opened => self.open(record, clock, tell),
            Kind::Exec | Kind::Exit => self.execs.record(record, clock, &mut |exec| tell(Event::Exec(Box::new(exec)))),
            _ => self.of_connection(record, clock, tell),
        }
    }

    fn of_connection(&mut self, record: &Record<'_>, clock: Clock, tell: &mut dyn FnMut(Event)) {
        let id = record.head.connection;
        let Some(connection) = self.connections.get_mut(&id) else {
            // That one which was found to be over is closed is told late in tracepoint mode: when its memory is used again.
            self.gaps.strays += u64::from(record.kind != Kind::Closed);
            return;
        };
        let containers = &mut self.containers;
        let tell = &mut |event| tell(Event::Call(event));
        let mut sink = Sink { clock, tell, container_of: &mut |process| containers.of_process(process) };
        if connection.record(record, &mut sink) {
            self.gaps = self.gaps.plus(connection.gaps());
            self.connections.remove(&id);
        }
    }

    /// Announces a connection. A second time when its client's path is known better than the listener's.
    fn open(&mut self, record: &Record<'_>, clock: Clock, tell: &mut dyn FnMut(Event)) {
        let Head { connection: id, field: kind, note, time_ns, .. } = record.head;
        let Some(socket) = socket(kind, record.data) else {
            self.gaps.strays += 1;
            return;
        };
        if let Some(known) = self.connections.get_mut(&id) {
            if !known.is_before(&record.head) {
                known.opened_again(&record.head, socket);
                return;
            }
            self.closed_unseen(id, true, clock.unix_ns(time_ns), clock, tell);
        }
        if self.connections.len() == MAX_CONNECTIONS {
            self.gaps.connections_refused += 1;
            return;
        }
        let mut connection = Connection::new(id, socket, note);
        connection.opened(&record.head);
        self.connections.insert(id, Ordered::new(connection));
    }

    /// Called every second or so, when the ring is empty: what is in it may be the end of a call.
    pub fn tick(&mut self, now_monotonic_ns: u64, clock: Clock, tell: &mut dyn FnMut(Event)) {
        let tell = &mut |event| tell(Event::Call(event));
        let mut over = Gaps::default();
        self.connections.retain(|_, connection| {
            let is_over = connection.tick(now_monotonic_ns, &mut Sink { clock, tell, container_of: &mut |_| None });
            if is_over {
                over = over.plus(connection.gaps());
            }
            !is_over
        });
        self.gaps = self.gaps.plus(over);
    }

    /// Records were lost, nobody knows of which connections: a gap in their numbers shows only with the next one, and where the
    /// kernel skipped a program there is none.
    pub fn doubt(&mut self, now_monotonic_ns: u64) {
        self.connections.values_mut().for_each(|connection| connection.doubt(now_monotonic_ns));
    }

    /// What was given up so far.
    pub fn gaps(&self) -> Gaps {
        let execs = self.gaps.plus(self.execs.gaps());
        self.connections.values().fold(execs, |sum, connection| sum.plus(connection.gaps()))
    }

    /// The connections that are followed.
    pub fn connections(&self) -> impl Iterator<Item = u64> {
        self.connections.keys().copied()
    }

    /// A connection is over, though its close was not told; `lost` says that this may be because its last records were lost.
    pub fn closed_unseen(&mut self, id: u64, lost: bool, now_unix_ns: u64, clock: Clock, tell: &mut dyn FnMut(Event)) {
        if let Some(connection) = self.connections.remove(&id) {
            self.gaps.closes_unseen += 1;
            self.abandon_one(connection, lost, now_unix_ns, clock, tell);
        }
    }

    /// The programs are detached: the ends of open calls and of processes will not be told.
    pub fn abandon(&mut self, now_unix_ns: u64, clock: Clock, tell: &mut dyn FnMut(Event)) {
        self.execs.forget_all();
        for (_, connection) in std::mem::take(&mut self.connections) {
            self.abandon_one(connection, true, now_unix_ns, clock, tell);
        }
    }

    fn abandon_one(
        &mut self,
        mut connection: Ordered,
        lost: bool,
        now_unix_ns: u64,
        clock: Clock,
        tell: &mut dyn FnMut(Event),
    ) {
        if lost {
            connection.lose(SERVER, 0); // since when does not matter any more
        }
        let tell = &mut |event| tell(Event::Call(event));
        connection.abandon(now_unix_ns, &mut Sink { clock, tell, container_of: &mut |_| None });
        self.gaps = self.gaps.plus(connection.gaps());
    }

    /// How much is kept now; goes through all open calls.
    pub fn kept(&self) -> Kept {
        let own = Kept { connections: self.connections.len(), execs: self.execs.running(), ..Kept::default() };
        let connections = self.connections.values().map(Ordered::kept);
        connections.fold(own, Kept::most)
    }

    /// A joined span told the method of a call.
    pub fn learn(&mut self, connection: u64, stream: u32, method: &Arc<str>) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.learn(stream, method);
        }
    }
}

impl Kept {
    /// The larger of both in everything.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            connections: self.connections.max(other.connections),
            execs: self.execs.max(other.execs),
            streams: self.streams.max(other.streams),
            waiting_points: self.waiting_points.max(other.waiting_points),
            early: self.early.max(other.early),
            unnamed: self.unnamed.max(other.unnamed),
            header_bytes: self.header_bytes.max(other.header_bytes),
            field_bytes: self.field_bytes.max(other.field_bytes),
        }
    }
}

fn socket(kind: u32, path: &[u8]) -> Option<Arc<Socket>> {
    let kind = *SocketKind::ALL.get((kind as usize).checked_sub(1)?)?;
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Arc::new(Socket { kind, path: String::from_utf8_lossy(path).into_owned() }))
}
