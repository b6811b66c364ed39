//! Calls whose end may have been lost: when they are given up.
//!
//! ```text
//!        records went by unseen            nothing is to come any more:
//! Sure ───────────────────────► InDoubt ──► its deadline passed long ago, or it has none and was in doubt for a day,
//!   │                              │        or there is no room for a newer call
//!   │                              └──────────────────────────────────────────► over, how and when is not known
//!   └── the server said GOAWAY and takes no such call; the response was written, but nobody is seen to read it ─► over
//! ```
//!
//! A call stays in doubt, whatever is seen of it later: what its server writes does not tell whether its client has cancelled it. In
//! doubt it is followed as any other, and most end as any other. That time goes by, or that later calls are over, proves
//! nothing: GetContainerEvents and ListAndWatch are open for days and silent for hours. So a call of which nothing was lost is
//! never given up, and one that was seen to stream only for its room.

use std::collections::BTreeMap;

use super::limits::{DEADLINE_MARGIN_NS, DOUBTED_FOR_NS, RESPONSE_READ_WITHIN_NS};
use super::stream::Stream;

/// Why a call is over without a record that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Its response was written; nobody was seen to read it.
    NotRead,
    /// Its end was lost.
    Lost,
    /// Its server does not take it (RFC 9113 §6.8).
    NotTaken,
}

/// Whether this call is over by now, though no record says so.
pub fn silent_end(stream: &Stream, now_monotonic_ns: u64, last_taken: u32) -> Option<Silent> {
    let now_ns = stream.clock.unix_ns(now_monotonic_ns);
    let after = |time_ns: u64, delay_ns: u64| time_ns.saturating_add(delay_ns) < now_ns;
    if let Some(over_ns) = stream.over_ns {
        return after(over_ns, RESPONSE_READ_WITHIN_NS).then_some(Silent::NotRead);
    }
    if stream.call.stream > last_taken {
        return Some(Silent::NotTaken);
    }
    let since_ns = stream.doubted_since_ns?;
    let lost = match stream.call.timeout_ns {
        Some(timeout_ns) => after(stream.call.started_ns.saturating_add(timeout_ns), DEADLINE_MARGIN_NS),
        // Or one that is not known: where the header table is not, it is an index to nothing.
        None => !stream.call.streaming && since_ns.saturating_add(DOUBTED_FOR_NS) < now_monotonic_ns,
    };
    lost.then_some(Silent::Lost)
}

/// Which call makes room for a newer one: of those that only wait for a reader the oldest, then of those in doubt, then of
/// those in doubt that are known to be streams, which may well live. `None` if every call is surely open.
pub fn makes_room(streams: &BTreeMap<u32, Stream>) -> Option<(u32, Silent)> {
    let oldest = |is: &dyn Fn(&Stream) -> bool| streams.iter().find(|(_, stream)| is(stream)).map(|(id, _)| *id);
    if let Some(id) = oldest(&|stream| stream.over_ns.is_some()) {
        return Some((id, Silent::NotRead));
    }
    let doubted = |stream: &Stream| stream.doubted_since_ns.is_some();
    let id = oldest(&|stream| doubted(stream) && !stream.call.streaming).or_else(|| oldest(&doubted))?;
    Some((id, Silent::Lost))
}
