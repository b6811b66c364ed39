//! The files of a recording: which connections there are, and what lies where.
//!
//! `PREFIX-N-client-events.json`, `PREFIX-N-client-{c2s,s2c}.bin` for each connection N = 1, 2, …; optionally
//! `PREFIX-N-server-events.json`, `PREFIX-otlp.binpb` and `PREFIX-otlp.json` or `.json.gz`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::events::{Action, Events};

/// A recording on disk. Nothing of it is held in memory but where it is.
#[derive(Debug, Clone)]
pub struct Recording {
    prefix: PathBuf,
    /// In the order in which they were opened.
    pub connections: Vec<Connection>,
    /// First event of any connection, Unix nanoseconds.
    pub first_ns: u64,
    /// Last event of any connection, Unix nanoseconds.
    pub last_ns: u64,
}

/// One recorded connection.
#[derive(Debug, Clone)]
pub struct Connection {
    pub number: u32,
    stem: String,
    /// When the client connected, Unix nanoseconds.
    pub opened_ns: u64,
    pub has_server_events: bool,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Client,
    Server,
}

/// The two byte streams of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ClientToServer,
    ServerToClient,
}

impl Recording {
    /// Finds a recording's files and reads all events once, so that what is wrong with them is said before anything starts.
    ///
    /// # Errors
    /// When there is no connection 1, an event cannot be read, or a direction's bytes are not told from first to last.
    pub fn open(prefix: &Path) -> Result<Self> {
        let mut recording = Self::find(prefix)?;
        for connection in &recording.connections {
            let (first_ns, last_ns) = connection.check()?;
            recording.first_ns = recording.first_ns.min(first_ns);
            recording.last_ns = recording.last_ns.max(last_ns);
        }
        Ok(recording)
    }

    /// Finds the files of a recording that was checked before; when it ends is not known then.
    pub(super) fn find(prefix: &Path) -> Result<Self> {
        let mut connections = Vec::new();
        for number in 1.. {
            let stem = format!("{}-{number}", prefix.display());
            if !client_events_path(&stem).exists() {
                break;
            }
            let has_server_events = server_events_path(&stem).exists();
            let mut connection = Connection { number, stem, opened_ns: 0, has_server_events };
            let first = connection.events(Side::Client)?.next();
            let first = first.with_context(|| format!("connection {number} has no events"))?;
            connection.opened_ns = first?.start_ns;
            connections.push(connection);
        }
        connections.sort_by_key(|connection| connection.opened_ns);
        let first = connections.first();
        let first =
            first.with_context(|| format!("no recording: there is no {}-1-client-events.json", prefix.display()))?;
        let first_ns = first.opened_ns;
        Ok(Self { prefix: prefix.to_owned(), connections, first_ns, last_ns: first_ns })
    }

    /// The OTLP requests of the same run, if recorded.
    pub fn otlp_path(&self) -> Option<PathBuf> {
        self.existing(&["-otlp.binpb"])
    }

    /// One line a request with its arrival, if recorded; plain or gzip.
    pub fn arrivals_path(&self) -> Option<PathBuf> {
        self.existing(&["-otlp.json", "-otlp.json.gz"])
    }

    /// When the client entered the write that brought connection 1 to `bytes` sent.
    ///
    /// # Errors
    /// When the client never sent that many.
    pub fn reached_ns(&self, bytes: u64) -> Result<u64> {
        let connection =
            self.connections.iter().find(|connection| connection.number == 1).expect("checked when opened");
        let mut sent = 0;
        for event in connection.events(Side::Client)? {
            let event = event?;
            if let Action::Write(part) = event.action {
                sent = part.end();
                if sent >= bytes {
                    return Ok(event.start_ns);
                }
            }
        }
        anyhow::bail!("the client of connection 1 sent only {sent} bytes, not {bytes}");
    }

    fn existing(&self, suffixes: &[&str]) -> Option<PathBuf> {
        let paths = suffixes.iter().map(|suffix| PathBuf::from(format!("{}{suffix}", self.prefix.display())));
        paths.into_iter().find(|path| path.exists())
    }
}

impl Connection {
    /// The events of one side as recorded.
    pub fn events(&self, side: Side) -> Result<Events> {
        Events::open(&match side {
            Side::Client => client_events_path(&self.stem),
            Side::Server => server_events_path(&self.stem),
        })
    }

    /// The bytes of one direction.
    pub fn bytes(&self, direction: Direction) -> Result<Bytes> {
        let name = match direction {
            Direction::ClientToServer => "c2s",
            Direction::ServerToClient => "s2c",
        };
        let path = PathBuf::from(format!("{}-client-{name}.bin", self.stem));
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Bytes { file, path })
    }

    /// Reads through both sides' events; returns when the first and the last happened.
    fn check(&self) -> Result<(u64, u64)> {
        let (mut first_ns, mut last_ns) = (u64::MAX, 0);
        let sides: &[Side] = if self.has_server_events { &[Side::Client, Side::Server] } else { &[Side::Client] };
        for &side in sides {
            let mut expected = [0; 2];
            for event in self.events(side)? {
                let event = event?;
                first_ns = first_ns.min(event.start_ns);
                last_ns = last_ns.max(event.end_ns);
                let (part, position) = match event.action {
                    Action::Read(part) => (part, &mut expected[0]),
                    Action::Write(part) => (part, &mut expected[1]),
                    _ => continue,
                };
                let (number, name, offset) = (self.number, side.name(), part.offset);
                ensure!(offset == *position, "connection {number} {name}: offset {offset} where {position} comes next");
                *position = part.end();
            }
        }
        Ok((first_ns, last_ns))
    }
}

/// A file with the bytes of one direction.
#[derive(Debug)]
pub struct Bytes {
    file: File,
    path: PathBuf,
}

impl Bytes {
    /// Fills `buffer` from `offset` on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let length = buffer.len();
        self.file
            .read_exact_at(buffer, offset)
            .with_context(|| format!("read {length} bytes at {offset} of {}", self.path.display()))
    }
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    pub fn sends(self) -> Direction {
        match self {
            Self::Client => Direction::ClientToServer,
            Self::Server => Direction::ServerToClient,
        }
    }

    pub fn receives(self) -> Direction {
        match self {
            Self::Client => Direction::ServerToClient,
            Self::Server => Direction::ClientToServer,
        }
    }
}

fn client_events_path(stem: &str) -> PathBuf {
    PathBuf::from(format!("{stem}-client-events.json"))
}

fn server_events_path(stem: &str) -> PathBuf {
    PathBuf::from(format!("{stem}-server-events.json"))
}
