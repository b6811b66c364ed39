//! Finished plugin calls that wait to hear which pod their volume or claim is for.

use std::collections::VecDeque;

use crate::call::Call;

/// A bounded queue; the oldest go first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: VecDeque<Waiting>,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Volume id or claim uid.
    key: Box<str>,
    connection: u64,
    stream: u32,
}

/// Most calls that wait: a publish follows its staging at once, so these are volumes being staged now.
const MAX_PENDING: usize = 256;

impl Pending {
    pub(super) fn push(&mut self, key: &str, call: &Call) {
        if self.calls.len() == MAX_PENDING {
            self.calls.pop_front();
            self.dropped += 1;
        }
        self.calls.push_back(Waiting { key: key.into(), connection: call.connection, stream: call.stream });
    }

    /// Connection and stream of the calls that wait for `key`; they wait no longer.
    pub(super) fn take(&mut self, key: &str) -> Vec<(u64, u32)> {
        let mut taken = Vec::new();
        self.calls.retain(|waiting| {
            let is_match = *waiting.key == *key;
            if is_match {
                taken.push((waiting.connection, waiting.stream));
            }
            !is_match
        });
        taken
    }

    /// Calls dropped because too many waited.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
