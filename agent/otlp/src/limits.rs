//! Every cap of this crate; a request that passes one is refused with a [`ParseError`](crate::ParseError).

/// Longest request, bytes: 2 GiB - 1, the most that the protobuf encoding allows a message. It also lets offsets be `u32`.
pub const MAX_REQUEST_BYTES: usize = i32::MAX as usize;

/// Most spans, most `ScopeSpans` and most `ResourceSpans` of one request. An empty span is 2 bytes on the wire and 64 in
/// the index; at 262,144 the index stays under 40 MiB whatever is sent, and real spans reach it only beyond 100 MiB.
pub const MAX_ENTRIES: usize = 1 << 18;

/// Most messages inside each other, counted below the request: the limit of prost and of protobuf's C++ and Java.
/// Lists and maps in attribute values nest freely, so it bounds the stack that checking them takes.
pub const MAX_NESTING: usize = 100;
