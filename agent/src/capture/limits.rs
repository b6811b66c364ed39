//! The caps of capture's user side, each with its reason.

use spanlet_abi::limits::{HEADER_BLOCK_BYTES, NESTED_BYTES};

/// Connections followed at once; the kernel side knows as many.
pub const MAX_CONNECTIONS: usize = 4096;

/// Open calls of one connection. gRPC servers of the node allow any number; a node under churn has a few dozen. Beyond it the
/// oldest call whose end may have been lost makes room; only if there is none, the newest is not followed.
pub const MAX_STREAMS: usize = 4096;

/// Fields of one request kept: a CSI request has at most a handful of paths, a DRA request three a claim.
pub const MAX_FIELDS: usize = 64;

/// Octets of one header frame kept: the kernel side copies no more of a whole block.
pub const MAX_HEADER_BYTES: usize = HEADER_BLOCK_BYTES;

/// Bytes of one field kept: the kernel side copies no more of any.
pub const MAX_FIELD_BYTES: usize = NESTED_BYTES;

/// Reads remembered for writes that are told of later: in tracepoint mode a read may return before the write that fed it does.
pub const MAX_READS: usize = 256;

/// Points that wait for a read.
pub const MAX_WAITING: usize = 8192;

/// Unnamed calls of one connection whose spans may still tell their method: kubelet exports within 5 s.
pub const MAX_UNNAMED: usize = 1024;

/// How long a finished call may wait for its response to be read.
pub const RESPONSE_READ_WITHIN_NS: u64 = 10_000_000_000;

/// How long after its deadline a call in doubt may still end by itself. Client and server both cancel at the deadline, within
/// milliseconds; a process that is stopped or starved on a node under pressure takes seconds.
pub const DEADLINE_MARGIN_NS: u64 = 30_000_000_000;

/// How long a call that has no known deadline may be in doubt: no pull of an image takes a day. A stream that has sent one message
/// and is silent since is given up, too, though it may live: the only ones of a node are a handful, and say so a day after a loss.
pub const DOUBTED_FOR_NS: u64 = 24 * 3_600 * 1_000_000_000;

/// How long what a server wrote may be told of after its client has closed: writes are told of when they return.
pub const CLOSED_FOR_NS: u64 = 1_000_000_000;

/// Records of a server that wait for a call to be told of, each connection: what it says while one thread of its client has yet to come
/// back to the CPU.
pub const MAX_EARLY: usize = 64;

/// How long they wait: a thread of a starved or throttled process may take seconds.
pub const EARLY_FOR_NS: u64 = 10_000_000_000;

/// Commands to the capture thread that may wait.
pub const COMMAND_QUEUE: usize = 16;

/// Processes of the runtime told of and not over yet; the kernel side follows as many.
pub const MAX_EXECS: usize = 8192;
