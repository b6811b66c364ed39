//! What capture tells of a series of records.

use std::collections::BTreeMap;

use spanlet::call::{Call, CallEvent};
use spanlet::capture::Event;
use spanlet::capture::offline::Offline;

use crate::programs::{CONNECTION, Told};

const SECOND_NS: u64 = 1_000_000_000;
/// Longer than any `grpc-timeout`, and than a call without one may be in doubt.
const LONG_NS: u64 = 25 * 3_600 * SECOND_NS;

/// A decoder, and what it has told so far.
pub(crate) struct Account {
    pub(crate) capture: Offline,
    pub(crate) started: Vec<Call>,
    pub(crate) finished: BTreeMap<u32, Call>,
    now_ns: u64,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { capture: Offline::with_clock_offset_ns(0), started: Vec::new(), finished: BTreeMap::new(), now_ns: 0 }
    }

    /// Takes all of these records in, with a tick every second.
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a Told>) -> Self {
        let mut account = Self::new();
        records.into_iter().for_each(|record| account.take(record));
        account
    }

    pub(crate) fn take(&mut self, record: &Told) {
        if record.time_ns > self.now_ns + SECOND_NS {
            self.tick(record.time_ns);
        }
        self.with(|capture, tell| capture.entry(&record.bytes, tell).expect("is a record"));
    }

    pub(crate) fn tick(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.with(|capture, tell| capture.tick(now_ns, tell));
    }

    /// Records were lost, nobody knows of which connection.
    pub(crate) fn doubt(&mut self) {
        self.capture.doubt(self.now_ns);
    }

    /// The connection's client is nowhere any more.
    pub(crate) fn gone(&mut self, lost: bool) {
        let now_ns = self.now_ns;
        self.with(|capture, tell| capture.closed_unseen(CONNECTION, lost, now_ns, tell));
    }

    /// Time goes by until every deadline is long over.
    pub(crate) fn wait(&mut self) {
        self.tick(self.now_ns + LONG_NS);
    }

    fn with(&mut self, act: impl FnOnce(&mut Offline, &mut dyn FnMut(Event))) {
        let Self { capture, started, finished, .. } = self;
        act(capture, &mut |event| match event {
            Event::Call(CallEvent::Started(call)) => started.push(*call),
            Event::Call(CallEvent::Finished(call)) => {
                let stream = call.stream;
                assert!(finished.insert(stream, *call).is_none(), "stream {stream} is over twice");
            }
            Event::Exec(exec) => panic!("nobody executed {exec:?}"),
        });
    }

    pub(crate) fn gap(&self, cause: &str) -> u64 {
        self.capture.gaps()[cause]
    }
}
