//! Ids of spans that the agent makes: SHA-256 of what the span describes, cut to length.

use sha2::{Digest as _, Sha256};

use crate::call::Call;
use crate::exec::Exec;

/// Trace id and span id; a child takes its parent's trace id instead.
pub(super) type SpanIds = ([u8; 16], [u8; 8]);

const NS_PER_MINUTE: u64 = 60_000_000_000;

/// Where the kernel tells of its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot of the node's kernel; empty if it cannot be read, so that two agents still agree.
pub fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Makes ids for this node.
#[derive(Debug)]
pub(super) struct Ids {
    node: Sha256,
}

impl Ids {
    pub(super) fn new(boot_id: &str) -> Self {
        Self { node: Sha256::new_with_prefix(boot_id) }
    }

    /// Of a span that describes `part` of a call. A socket's inode may be used again, though not within a minute; the exact
    /// start would not do, because each agent reads the clock by itself.
    pub(super) fn of_call(&self, call: &Call, part: &str) -> SpanIds {
        let numbers = [call.connection, u64::from(call.stream), call.started_ns / NS_PER_MINUTE];
        self.hash(part, &numbers, &[])
    }

    /// Of a process's span.
    pub(super) fn of_exec(&self, exec: &Exec) -> SpanIds {
        let numbers = [u64::from(exec.pid), u64::from(exec.parent_pid), exec.started_ns / NS_PER_MINUTE];
        self.hash("exec", &numbers, &exec.argv)
    }

    fn hash(&self, part: &str, numbers: &[u64], texts: &[String]) -> SpanIds {
        let mut hash = self.node.clone();
        for text in std::iter::once(part).chain(texts.iter().map(String::as_str)) {
            hash.update((text.len() as u64).to_be_bytes()); // so that no two lists of texts look the same
            hash.update(text);
        }
        numbers.iter().for_each(|number| hash.update(number.to_be_bytes()));
        let digest = hash.finalize();
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&digest[..16]);
        span_id.copy_from_slice(&digest[16..24]);
        (trace_id, span_id)
    }
}
