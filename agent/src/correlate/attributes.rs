//! What a joined span is told of its call.

use spanlet_otlp::{Additions, Span, SpanKind, Value};

use crate::call::Call;

const REQUEST_WAIT: &str = "spanlet.call.request_wait_ns";
const HANDLING: &str = "spanlet.call.handling_ns";
const RESPONSE_SEND: &str = "spanlet.call.response_send_ns";
const RESPONSE_WAIT: &str = "spanlet.call.response_wait_ns";
const CLIENT_OVERHEAD: &str = "spanlet.call.client_overhead_ns";
const SERVER_ADDRESS: &str = "server.address";

/// Adds the call's phases and its socket to span `index`; an attribute that the span has already stays as it is.
pub(super) fn add(additions: &mut Additions, index: usize, span: &Span<'_>, call: &Call) {
    let points = &call.points;
    let phases = [
        (REQUEST_WAIT, points.request_wait_ns()),
        (HANDLING, points.handling_ns()),
        (RESPONSE_SEND, points.response_send_ns()),
        (RESPONSE_WAIT, points.response_wait_ns()),
        (CLIENT_OVERHEAD, client_overhead_ns(span, call)),
    ];
    let present = Present::of(span);
    let phases = phases.into_iter().enumerate().filter_map(|(position, (key, value))| {
        let value = i64::try_from(value?).ok()?;
        (!present.has(position)).then_some((key, Value::Int(value)))
    });
    let address =
        (!present.has(5) && !call.socket.path.is_empty()).then(|| (SERVER_ADDRESS, Value::Str(&call.socket.path)));
    additions.span_attributes(index, phases.chain(address));
}

/// What the client itself took: its span less the time between its first point and its last. `None` for server spans,
/// for streams (their points are those of the first message) and where the points are not all known.
fn client_overhead_ns(span: &Span<'_>, call: &Call) -> Option<u64> {
    if span.kind() != SpanKind::Client || call.streaming {
        return None;
    }
    let span_ns = span.end_unix_nano().checked_sub(span.start_unix_nano())?;
    span_ns.checked_sub(call.points.whole_ns()?)
}

/// Which of our attributes the span has, as bits in the order in which [`add`] writes them.
struct Present(u8);

impl Present {
    fn of(span: &Span<'_>) -> Self {
        let keys = [REQUEST_WAIT, HANDLING, RESPONSE_SEND, RESPONSE_WAIT, CLIENT_OVERHEAD, SERVER_ADDRESS];
        let bits = span
            .attribute_keys()
            .filter(|key| key.starts_with(b"s")) // most attributes of CRI spans start with `rpc.`
            .filter_map(|key| keys.iter().position(|ours| ours.as_bytes() == key))
            .fold(0, |bits, position| bits | 1 << position);
        Self(bits)
    }

    fn has(&self, position: usize) -> bool {
        self.0 & 1 << position != 0
    }
}
