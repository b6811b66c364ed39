//! Every cap of this crate, with its reason. Reaching one is counted where it is enforced.

/// Octets of a dynamic table until a size update says otherwise (RFC 9113 §6.5.2, SETTINGS_HEADER_TABLE_SIZE).
pub const DEFAULT_TABLE_BYTES: usize = 4096;

/// Largest dynamic table that is followed. grpc-go, tonic and hyper stay at 4,096; 64 KiB is what browsers ask for.
/// Bounds the memory one direction of a connection can pin, whatever its SETTINGS say.
pub const MAX_TABLE_BYTES: usize = 64 * 1024;

/// What an entry costs beyond its octets (RFC 7541 §4.1); thereby also the least an entry can take.
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Longest name or value kept, after Huffman decoding. Equal to [`MAX_TABLE_BYTES`], so a string that is refused can
/// never be an entry of the table: refusing it leaves the table right (RFC 7541 §4.4).
pub const MAX_STRING_BYTES: usize = MAX_TABLE_BYTES;

/// Size of one decoded header list (RFC 9113 §6.5.2: octets plus 32 a field). gRPC servers accept 8 KiB to 16 KiB by default;
/// four times that leaves room for `grpc-status-details-bin`. Fields beyond it are read for the table and not handed out.
pub const MAX_HEADER_LIST_BYTES: usize = 64 * 1024;

/// Fields of one header list. A CRI call has 10; an indexed field takes one octet on the wire but a whole [`crate::Field`]
/// here, so the count needs a cap of its own.
pub const MAX_FIELDS: usize = 256;

/// Continuation octets of an HPACK integer (RFC 7541 §5.1 asks for a limit). Four give 28 bits, more than any block holds.
pub const MAX_INTEGER_CONTINUATIONS: u32 = 4;

/// Octets of one header block over all its fragments; as [`MAX_HEADER_LIST_BYTES`], since a block is hardly ever longer
/// than what it decodes to.
pub const MAX_BLOCK_BYTES: usize = 64 * 1024;

/// CONTINUATION frames of one block. Four full frames make [`MAX_BLOCK_BYTES`]; 16 allow for finer cuts; more is a
/// CONTINUATION flood (CVE-2024-27316), endless with empty frames.
pub const MAX_CONTINUATIONS: u32 = 16;

/// Largest frame payload before a SETTINGS_MAX_FRAME_SIZE is seen (RFC 9113 §4.2).
pub const DEFAULT_FRAME_BYTES: u32 = 16 * 1024;

/// Largest frame payload that the 24-bit length can say (RFC 9113 §4.2). Payloads are handed through, not buffered.
pub const MAX_FRAME_BYTES: u32 = (1 << 24) - 1;

/// Streams followed at a time in one direction. kubelet has tens of calls under way; a server without
/// MAX_CONCURRENT_STREAMS allows any number. The oldest is forgotten first.
pub const MAX_STREAMS: usize = 1024;

/// Parameters read of one SETTINGS frame. Seven are registered for HTTP/2; gRPC sends three at most.
pub const MAX_SETTINGS: usize = 32;

/// Frame headers in a row that prove a boundary. One plausible header comes up once in 2^21 random octets, and protobuf is
/// less random than that; each further one must stand exactly where the one before says. Four of them make a false start a
/// matter of 2^-80, and are on the wire within two unary calls (HEADERS and DATA each).
pub const RESYNC_CHAIN: u32 = 4;

/// Octets kept while looking for a boundary: the longest chain of default frames, and one frame to skip before it. If they
/// prove nothing, the older half is dropped and counted.
pub const RESYNC_WINDOW_BYTES: usize = (RESYNC_CHAIN as usize + 1) * (DEFAULT_FRAME_BYTES as usize + 9);

const _: () = assert!(MAX_STRING_BYTES >= MAX_TABLE_BYTES, "a refused string must not fit the table");
