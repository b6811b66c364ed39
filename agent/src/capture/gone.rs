//! Connections whose close was not told: the record was lost, or tracepoint mode saw none. There a connection ends by what its ends
//! read, or by `close(2)` where the tracepoints are those of system calls.
//!
//! ```text
//!            its client's socket is nowhere        and again, 10 s later
//! followed ──────────────────────────────► missing ─────────────────────► over
//!     ▲                                       │
//!     └───────────── it is listed ────────────┘   (a listing that is long may pass over a socket)
//! ```

use std::collections::HashSet;
use std::time::Duration;

use super::old;

/// A listing costs about a microsecond a socket of the node.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for them now and then.
#[derive(Debug)]
pub struct Gone {
    looked_ns: u64,
    missing: HashSet<u64>,
    /// The kernel lists no unix sockets.
    blind: bool,
}

impl Gone {
    pub fn new(now_ns: u64) -> Self {
        Self { looked_ns: now_ns, missing: HashSet::new(), blind: false }
    }

    /// Which of the connections, told by the inodes of their clients' sockets, are over. `now_ns` is of any steady clock.
    pub fn look(&mut self, now_ns: u64, known: impl Iterator<Item = u64>) -> Vec<u64> {
        if self.blind || u128::from(now_ns.saturating_sub(self.looked_ns)) < LOOK_EVERY.as_nanos() {
            return Vec::new();
        }
        self.looked_ns = now_ns;
        let mut known = known.peekable();
        if known.peek().is_none() {
            self.missing.clear();
            return Vec::new();
        }
        match old::inodes() {
            Ok(alive) => self.judge(known, &alive),
            Err(error) => {
                tracing::warn!(%error, "unix sockets cannot be listed: calls of a process that is killed may stay open");
                self.blind = true;
                Vec::new()
            }
        }
    }

    fn judge(&mut self, known: impl Iterator<Item = u64>, alive: &HashSet<u64>) -> Vec<u64> {
        let missing: HashSet<u64> = known.filter(|inode| !alive.contains(inode)).collect();
        let over = missing.intersection(&self.missing).copied().collect();
        self.missing = missing;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_missing_twice_is_gone() {
        let mut gone = Gone::new(0);
        let mut judge = |known: &[u64], alive: &[u64]| {
            let mut over = gone.judge(known.iter().copied(), &alive.iter().copied().collect());
            over.sort_unstable();
            over
        };
        assert_eq!(judge(&[1, 2, 3], &[1]), [0; 0]);
        assert_eq!(judge(&[1, 2, 3], &[1, 2]), [3]);
        assert_eq!(judge(&[1, 2], &[1]), [0; 0], "2 was there in between");
        assert_eq!(judge(&[1, 2], &[]), [2]);
        assert_eq!(judge(&[1], &[]), [1]);
    }

    #[test]
    fn it_looks_now_and_then() {
        let mut gone = Gone::new(0);
        let unknown = u64::MAX; // no inode
        let second_ns = 1_000_000_000;
        let times = [9, 10, 19, 20].map(|second| gone.look(second * second_ns, [unknown].into_iter()));
        assert_eq!(times, [vec![], vec![], vec![], vec![unknown]]);
    }
}
