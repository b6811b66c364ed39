//! The recorded system calls of one side of a connection, read from their JSON array one after the other.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A stretch of one direction's byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    /// Bytes that the system call moved.
    pub length: u64,
    /// Bytes that it was asked to move.
    pub requested: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Connect,
    Accept,
    Read(Part),
    Write(Part),
    /// A read that returned 0.
    EndOfStream,
    Close,
}

/// One system call. Times are Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub start_ns: u64,
    pub end_ns: u64,
    pub action: Action,
}

/// Iterator over the events of one file, in the order in which the calls returned.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<File>,
    path: PathBuf,
}

impl Part {
    /// Stream offset behind the part.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

impl Events {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { reader: BufReader::new(file), path: path.to_owned() })
    }

    /// The array's next element; serde_json reads no further than an object's closing brace.
    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            match self.reader.fill_buf()?.first() {
                None | Some(b']') => return Ok(None),
                Some(b'[' | b',' | b' ' | b'\t' | b'\r' | b'\n') => self.reader.consume(1),
                Some(_) => break,
            }
        }
        let mut json = serde_json::Deserializer::from_reader(&mut self.reader);
        Ok(Some(Record::deserialize(&mut json)?))
    }

    fn next_event(&mut self) -> Result<Option<Event>> {
        while let Some(record) = self.next_record()? {
            let start_ns = nanoseconds(record.t);
            let end_ns = record.t_end.map_or(start_ns, nanoseconds);
            if let Some(action) = record.action()? {
                return Ok(Some(Event { start_ns, end_ns, action }));
            }
        }
        Ok(None)
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().with_context(|| format!("read {}", self.path.display())).transpose()
    }
}

/// An element as it is written.
#[derive(Debug, Deserialize)]
struct Record {
    /// Unix seconds.
    t: f64,
    t_end: Option<f64>,
    op: String,
    dir: Option<String>,
    off: Option<u64>,
    len: Option<u64>,
    req: Option<u64>,
    ret: Option<i64>,
}

impl Record {
    /// `None` for calls that did nothing (EAGAIN and other failures).
    fn action(&self) -> Result<Option<Action>> {
        if self.ret.is_some_and(|ret| ret < 0) {
            return Ok(None);
        }
        Ok(Some(match (self.op.as_str(), self.dir.as_deref()) {
            ("connect", None) => Action::Connect,
            ("accept" | "accept4", None) => Action::Accept,
            ("close" | "shutdown", None) => Action::Close,
            ("read", None) => Action::EndOfStream,
            ("read", Some("rx")) => Action::Read(self.part()?),
            ("write", Some("tx")) => Action::Write(self.part()?),
            (op, dir) => bail!("a replay knows no system call {op:?} with direction {dir:?}"),
        }))
    }

    fn part(&self) -> Result<Part> {
        let offset = self.off.with_context(|| format!("{} without off", self.op))?;
        let length = self.len.with_context(|| format!("{} without len", self.op))?;
        Ok(Part { offset, length, requested: self.req.unwrap_or(length).max(length) })
    }
}

/// Microseconds are exact in a double until the year 2255.
fn nanoseconds(unix_seconds: f64) -> u64 {
    (unix_seconds * 1e6).round() as u64 * 1000
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn events(json: &str) -> Vec<Result<Event>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.as_bytes()).unwrap();
        Events::open(file.path()).unwrap().collect()
    }

    #[test]
    fn every_kind_of_event_is_read() {
        let json = r#"[
            {"t": 1795318104.516685, "op": "connect", "tid": "1", "ret": 0},
            {"t": 1795318104.517558, "t_end": 1795318104.517647, "op": "write", "tid": "1", "dir": "tx", "off": 24, "len": 9, "req": 12},
            {"t": 1795318104.517627, "op": "read", "tid": "1", "dir": "rx", "off": 0, "len": 15, "req": 32768},
            {"t": 1795318104.6, "op": "read", "tid": "1", "dir": null, "ret": -11},{"t": 1795318104.7, "op": "read", "tid": "1", "ret": 0, "err": ""},
            {"t": 1795318104.8, "op": "close", "tid": "1", "ret": 0}
        ]"#;
        let second = 1_795_318_104_000_000_000;
        let event = |start: u64, end: u64, action| Event { start_ns: second + start, end_ns: second + end, action };
        let read: Vec<_> = events(json).into_iter().map(Result::unwrap).collect();
        assert_eq!(
            read,
            [
                event(516_685_000, 516_685_000, Action::Connect),
                event(517_558_000, 517_647_000, Action::Write(Part { offset: 24, length: 9, requested: 12 })),
                event(517_627_000, 517_627_000, Action::Read(Part { offset: 0, length: 15, requested: 32768 })),
                event(700_000_000, 700_000_000, Action::EndOfStream),
                event(800_000_000, 800_000_000, Action::Close),
            ]
        );
    }

    #[test]
    fn what_cannot_be_replayed_is_an_error() {
        for json in [
            r#"[{"t": 1.0, "op": "sendmsg", "tid": "1", "dir": "tx", "off": 0, "len": 1}]"#,
            r#"[{"t": 1.0, "op": "write", "tid": "1", "dir": "tx", "len": 1}]"#,
            r#"[{"t": 1.0, "op": "write", "tid": "1", "dir": "tx", "off": 0, "#,
        ] {
            assert!(events(json).pop().unwrap().is_err(), "{json}");
        }
    }
}
