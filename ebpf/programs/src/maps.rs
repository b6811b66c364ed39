//! Every map and read-only global, and the state that lives in them.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, Stack};
use spanlet_abi::counters::{Counters, Program, Runs};
use spanlet_abi::event::{HEAD_BYTES, Head, Kind};
use spanlet_abi::layout::{Agent, Layout, SYSTEM_CALLS};
use spanlet_abi::limits::{
    BATCH_BYTES, GIVEN_BYTES, HEADER_BLOCK_BYTES, HOLDER_SLOTS, ID_BYTES, MAX_ENDPOINTS, MAX_MARKS, MAX_PATHS,
    MAX_STREAMS, MAX_TASKS, PATH_BYTES, SOCKET_SLOTS, THREAD_SLOTS,
};
use spanlet_abi::task::Task;

use crate::iterator::ITERATOR_BYTES;

/// `BPF_F_MMAPABLE` (linux/bpf.h)
const MMAPABLE: u32 = 1 << 10;
/// `BPF_F_NO_PREALLOC`: an LPM trie takes nothing else.
const NO_PREALLOC: u32 = 1;

/// Where a direction of a connection stands.
///
/// ```text
/// Preface ──24 bytes──► Header ──9 bytes──► Payload ──its length──► Header …
/// Unknown ──proof────────►┘  ▲                  (a gap, or what is no frame: Unknown)
/// ```
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// Frame boundaries are known.
    Sure = 0,
    /// They are not: the next write that proves itself is taken.
    Unknown = 1,
}

/// `call::SocketKind::Cri`.
pub const CRI: u32 = 1;
/// Kinds of an endpoint beyond those of `call::SocketKind`.
pub const IGNORED: u32 = 0xffff;
pub const CONNECTING: u32 = 1 << 16;

/// One end of a watched connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// Inode of the client's socket.
    pub connection: u64,
    /// `struct sock` of this end, 0 while the place is free, and of the other.
    pub sk: u64,
    pub peer: u64,
    /// Its own place in the array, and what is that of the other end as long as that is there.
    pub index: u32,
    pub peer_index: u32,
    /// Bytes accepted from this end, and handed to it.
    pub written: u64,
    pub read: u64,
    /// Entry of the write that held the current frame's first byte.
    pub frame_begun_ns: u64,
    /// `call::SocketKind`, or [`IGNORED`]; with [`CONNECTING`] while `connect` is under way.
    pub kind: u32,
    /// `event::CLIENT` or `event::SERVER`.
    pub end: u32,
    /// Records of this end's writes so far, and of its reads: another thread may do the one while one does the other.
    pub sequence: u32,
    pub read_sequence: u32,
    /// Process in the initial pid namespace that last used this end, and its id in the agent's.
    pub global_process: u32,
    pub process: u32,
    /// A [`Track`].
    pub track: u32,
    /// Payload bytes of the current frame that are to come.
    pub left: u32,
    /// Bytes of a cut frame header in `header`.
    pub have: u32,
    /// Bytes copied of the current header block.
    pub copied: u32,
    pub header: [u8; 16],
    /// The current frame's length, type, flags and stream.
    pub length: u32,
    pub frame: u32,
    pub flags: u32,
    pub stream: u32,
    /// 1 if `read` counts from where the other end's `written` does.
    pub aligned: u32,
    /// The current stream's window holds fields that are to be looked at before its frame ends.
    pub unparsed: u32,
    /// `written` behind the last message that ended, whose reader the agent waits for, and behind the one before; what of
    /// `read` was told last.
    pub point: u64,
    pub point_before: u64,
    pub told: u64,
    /// How far `read` was beyond what was known to be written, the last time it was, and how often in a row by so much.
    pub beyond: u32,
    pub beyond_times: u32,
    /// Marks of other threads that wait in the map of marks.
    pub parked: u32,
    pub zero: u32,
    /// The write that is walked, or is to be: one thread at a time.
    pub mark: Mark,
    /// The first message of the stream that was in frames last: others wait in the map of streams.
    pub message: Message,
    /// kprobe: the iterator of the message that is about to be sent.
    pub iterator: [u8; ITERATOR_BYTES],
}

/// What a run that walks a write works with; nothing in it outlives the run. Each mode has one program that walks, and that does
/// not run twice at once on one processor.
#[repr(C)]
pub struct Scratch {
    /// User memory from `ahead_from` on.
    pub ahead_from: u64,
    pub ahead_bytes: u64,
    pub ahead: [u8; AHEAD + AHEAD_SLACK],
    /// Bytes of `records` that are set out, and where the last of them begins, or [`NO_RECORD`].
    pub used: u64,
    pub last: u64,
    /// How many of each kind, a byte for each: none has more in a batch.
    pub counts: [u64; KIND_WORDS],
    /// Batches so far.
    pub batches: u64,
    pub records: [u8; RECORDS_BYTES],
}

/// Words that hold a byte for each kind.
pub const KIND_WORDS: usize = Kind::COUNT.div_ceil(8);
const _: () = assert!(BATCH_BYTES / HEAD_BYTES < u8::MAX as usize);

/// [`Scratch::last`] without one.
pub const NO_RECORD: u64 = u64::MAX;
/// A record is begun where the batch is not full yet: then the largest still fits.
pub const RECORDS_BYTES: usize = BATCH_BYTES + HEAD_BYTES + WINDOW + HEADER_BLOCK_BYTES + 8;

/// Bytes read ahead at once: a call's request mostly fits, and its answer.
pub const AHEAD: usize = 512;
/// What is taken of them begins inside and is no longer than this.
pub const AHEAD_SLACK: usize = 64;

/// What a thread is about to do, from the entry of a system call or function until its bytes are accepted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mark {
    pub sk: u64,
    pub thread: u64,
    pub time_ns: u64,
    /// A `layout::Action`; none while the thread is at rest.
    pub action: u32,
    /// 1 if [`THREADS`] counts it.
    pub counted: u32,
    /// Connect: the caller's `struct sockaddr` and its length.
    pub address: u64,
    pub address_length: u64,
    /// The segment under the cursor: user memory, where in it, where it ends.
    pub buffer: u64,
    pub at: u64,
    pub end: u64,
    /// Segments behind it: address of the next `struct iovec`, how many, 1 if in kernel memory.
    pub segments: u64,
    pub segments_left: u32,
    pub segments_in_kernel: u32,
    /// Accepted bytes that are to be walked.
    pub remaining: u64,
    /// Bytes that this step of the walk may take: of the segment, of the frame, and accepted.
    pub part: u64,
    /// The message, or page; kprobe: the iterator's count at entry and what has been accounted for.
    pub message: u64,
    pub count: u64,
    pub accepted: u64,
}

/// Of the sockets with one hash: how many are watched, and the place of the one that was added last.
#[repr(C)]
pub struct SocketSlot {
    pub watched: u32,
    pub hint: u32,
}

/// Bytes of [`Message::window`]: an id may be taken behind what is already there, and is copied in whole words.
pub const WINDOW: usize = 2 * ID_BYTES + 8;

/// How far the first message of a stream has been looked at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    /// A `message::Stage`.
    pub stage: u32,
    /// Whose message it is, 0 = nobody's.
    pub stream: u32,
    /// Unread bytes at the start of `window`, and how many there should be.
    pub have: u32,
    pub target: u32,
    /// Bytes of the message that are still to be taken from the stream.
    pub left: u32,
    /// Bytes of the current field still to copy, then to skip.
    pub copy: u32,
    pub skip: u32,
    pub field: u32,
    /// Notes for the next `Field` record.
    pub note: u32,
    /// Fields looked at.
    pub fields: u32,
    /// Where in the window the plan of a field stands, and the number last read there.
    pub at: u32,
    pub value: u32,
    /// Bytes of the first part of a field: from the window, and from the stream.
    pub from_window: u32,
    pub from_stream: u32,
    /// Bytes at the window's start that were taken.
    pub behind: u32,
    pub zero: u32,
    /// Where and when the first message ended.
    pub end_offset: u64,
    pub end_ns: u64,
    pub window: [u8; WINDOW],
}

/// A stream of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StreamKey {
    pub sk: u64,
    pub stream: u32,
    pub zero: u32,
}

/// The record of an executed process while it is put together, and how far its environment was looked through.
///
/// Behind what the record holds stands what was looked at last; it is never written to the ring.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Given {
    pub head: Head,
    pub data: [u8; GIVEN_BYTES],
    /// Bytes of `data` that are the record's.
    pub have: u64,
    /// User memory: the rest of the environment.
    pub at: u64,
    pub end: u64,
    /// 1 if the cursor stands inside a variable; 1 if that variable is copied.
    pub inside: u32,
    pub taking: u32,
}

/// A path as the trie of watched paths takes it.
pub type PathKey = Key<[u8; PATH_BYTES]>;

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0); // resized by the agent before loading
#[map]
pub static COUNTERS: Array<Counters> = Array::with_max_entries(1, MMAPABLE);
/// A slot for each program and CPU, CPUs side by side; resized by the agent to the machine's CPUs before loading.
#[map]
pub static RUNS: Array<Runs> = Array::with_max_entries(Program::COUNT as u32, MMAPABLE);
/// The ends of watched connections.
#[map]
pub static ENDPOINTS: Array<Endpoint> = Array::with_max_entries(MAX_ENDPOINTS, 0);
/// Places in [`ENDPOINTS`] that are free; filled by the agent.
#[map]
pub static FREE: Stack<u32> = Stack::with_max_entries(MAX_ENDPOINTS, 0);
/// Address of a `struct sock`, which is what every hook has at hand → its place in [`ENDPOINTS`], until the socket is known to be
/// closed.
#[map]
pub static INDEX: HashMap<u64, u32> = HashMap::with_max_entries(MAX_ENDPOINTS, 0);
/// The short way there, by hash: most sockets are not watched, and most that are have a slot for themselves.
#[unsafe(no_mangle)]
pub static mut SOCKETS: [SocketSlot; SOCKET_SLOTS] = [const { SocketSlot { watched: 0, hint: 0 } }; SOCKET_SLOTS];
/// 1 for the hash of each process that holds a watched socket (tracepoints of system calls). It stays when the process ends, and then
/// costs others that have the same hash a look at their descriptors.
#[map]
pub static HOLDERS: Array<u32> = Array::with_max_entries(HOLDER_SLOTS, 0);
/// Threads that have begun something, by hash: where none has, a look-up in [`MARKS`] is spared.
#[unsafe(no_mangle)]
pub static mut THREADS: [u32; THREAD_SLOTS] = [0; THREAD_SLOTS];
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// Marks of threads whose endpoint is not known at once, or has another thread's mark. Keyed by thread: a thread is in one system
/// call at a time. The oldest go: a thread that has ended leaves its mark.
#[map]
pub static MARKS: LruHashMap<u64, Mark> = LruHashMap::with_max_entries(MAX_MARKS, 0);
/// Messages of streams that take turns. The oldest go: a connection that ends in mid-stream leaves its streams.
#[map]
pub static STREAMS: LruHashMap<StreamKey, Message> = LruHashMap::with_max_entries(MAX_STREAMS, 0);
/// Watched paths (with their final zero) and prefixes → `call::SocketKind`.
#[map]
pub static PATHS: LpmTrie<[u8; PATH_BYTES], u32> = LpmTrie::with_max_entries(MAX_PATHS, NO_PREALLOC);
/// Inodes of sockets that were connected before the attach → `call::SocketKind`, with `event::OLD_SERVER` for the accepted end.
#[map]
pub static OLD: HashMap<u64, u32> = HashMap::with_max_entries(MAX_ENDPOINTS, 0);
/// The runtime's processes, by their id in the initial pid namespace. Full, a process is not followed, which counts as a lost exec.
#[map]
pub static TASKS: HashMap<u32, Task> = HashMap::with_max_entries(MAX_TASKS, 0);
/// Only one program uses it, and a program does not run twice at once on one processor: nobody else writes while it does.
#[map]
pub static GIVEN: PerCpuArray<Given> = PerCpuArray::with_max_entries(1, 0);

/// Ends of connections older than the attach that are not found yet: set by the agent, counted down by the programs.
#[unsafe(link_section = ".data.old")]
#[unsafe(no_mangle)]
pub static mut OLD_LEFT: u64 = 0;

#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout::EMPTY;
#[unsafe(no_mangle)]
pub static AGENT: Agent = Agent { process: 0, net_inum: 0, pid_inum: 0, cpus: 0, wake_bytes: 0 };
#[unsafe(no_mangle)]
pub static ACTIONS: [u8; SYSTEM_CALLS] = [0; SYSTEM_CALLS];

pub static EMPTY_ENDPOINT: Endpoint = Endpoint {
    connection: 0,
    sk: 0,
    peer: 0,
    index: 0,
    peer_index: 0,
    written: 0,
    read: 0,
    frame_begun_ns: 0,
    kind: 0,
    end: 0,
    sequence: 0,
    read_sequence: 0,
    global_process: 0,
    process: 0,
    track: 0,
    left: 0,
    have: 0,
    copied: 0,
    header: [0; 16],
    length: 0,
    frame: 0,
    flags: 0,
    stream: 0,
    aligned: 0,
    unparsed: 0,
    point: 0,
    point_before: 0,
    told: 0,
    beyond: 0,
    beyond_times: 0,
    parked: 0,
    zero: 0,
    mark: BLANK_MARK,
    message: BLANK_MESSAGE,
    iterator: [0; ITERATOR_BYTES],
};

pub static EMPTY_MARK: Mark = BLANK_MARK;

const BLANK_MARK: Mark = Mark {
    sk: 0,
    thread: 0,
    time_ns: 0,
    action: 0,
    counted: 0,
    address: 0,
    address_length: 0,
    buffer: 0,
    at: 0,
    end: 0,
    segments: 0,
    segments_left: 0,
    segments_in_kernel: 0,
    remaining: 0,
    part: 0,
    message: 0,
    count: 0,
    accepted: 0,
};

const BLANK_MESSAGE: Message = Message {
    stage: 0,
    stream: 0,
    have: 0,
    target: 0,
    left: 0,
    copy: 0,
    skip: 0,
    field: 0,
    note: 0,
    fields: 0,
    at: 0,
    value: 0,
    from_window: 0,
    from_stream: 0,
    behind: 0,
    zero: 0,
    end_offset: 0,
    end_ns: 0,
    window: [0; WINDOW],
};

/// A layout field. The read is volatile: the value is set after compilation.
macro_rules! layout {
    ($field:ident) => {{
        // SAFETY: reads an initialised static; volatile keeps the compiler from folding the placeholder in.
        #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
        unsafe {
            core::ptr::read_volatile(&raw const $crate::maps::LAYOUT.$field)
        }
    }};
}

/// A field of [`AGENT`].
macro_rules! agent {
    ($field:ident) => {{
        // SAFETY: as above.
        #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
        unsafe {
            core::ptr::read_volatile(&raw const $crate::maps::AGENT.$field)
        }
    }};
}

/// Reads and writes of map values are volatile: a value read back from memory is an unknown scalar to the verifier, which
/// lets it prune the walker's loop, and another CPU may look at the same value.
macro_rules! load {
    ($pointer:expr, $field:ident) => {
        core::ptr::read_volatile(&raw const (*$pointer).$field)
    };
}
macro_rules! store {
    ($pointer:expr, $field:ident, $value:expr) => {
        core::ptr::write_volatile(&raw mut (*$pointer).$field, $value)
    };
}

pub(crate) use {agent, layout, load, store};
