//! The caps of the kernel side, each with its reason.

/// `sun_path` of `struct sockaddr_un` (linux/un.h).
pub const PATH_BYTES: usize = 108;

/// Most bytes copied of one header block. The largest in recordings of kubelet is 163; metadata that Kubernetes does not send is cut.
pub const HEADER_BLOCK_BYTES: usize = 1024;

/// The records of one write go into the ring together, at most so many bytes and one record at a time: a write's are some 300.
pub const BATCH_BYTES: usize = 2048;

/// Most bytes copied of a string field: ids have 64, image names and paths at most about 250.
pub const STRING_BYTES: usize = 256;

/// Most bytes copied of a nested message: a sandbox's metadata is at most 5 + 253 + 38 + 65 bytes.
pub const NESTED_BYTES: usize = 512;

/// Digits of a sandbox or container id.
pub const ID_BYTES: usize = 64;

/// How often the agent looks into the ring by itself. Waking it costs the task that wrote a record more than all the rest, so
/// it is done only when the ring fills up; before spans are joined and questions answered the agent looks anyway.
pub const LOOK_EVERY_MS: u32 = 100;

/// The part of the ring that may fill before the agent is woken.
pub const WAKE_PART: u32 = 8;

/// Bytes looked at to find a field and where it starts: two tags, two lengths and a first byte take 11.
pub const WINDOW_BYTES: usize = 24;

/// Top-level fields looked at in one message of a plugin; volume contexts have been seen with some twenty entries.
pub const MAX_FIELDS: u32 = 64;

/// Steps of the frame walker in one run: a request takes about four, and up to 21 requests have been seen in one write. The
/// verifier counts some ten instructions for each.
pub const MAX_STEPS: u32 = 1024;

/// The same where the kernel has `bpf_loop`: 32 KiB of nothing but PINGs, twice over.
pub const MAX_LOOP_STEPS: u32 = 8192;

/// Frames that must follow one another before a position in an unknown stream is taken for a frame boundary,
/// unless fewer of them end exactly where the write ends.
pub const PROOF_FRAMES: u32 = 4;

/// Largest payload of a frame: gRPC implementations keep the protocol's initial SETTINGS_MAX_FRAME_SIZE, some raise it to 1 MiB.
pub const MAX_FRAME_BYTES: u32 = 1 << 20;

/// Ends of watched connections known at once: 4,096 connections, far above a node's few dozen.
pub const MAX_ENDPOINTS: u32 = 8192;

/// Slots of sockets by hash: with a few hundred endpoints most are empty, and 32 KiB stay in a cache.
pub const SOCKET_SLOTS: usize = 4096;

/// Streams whose first message waits for its turn while another stream's is looked at, both directions.
pub const MAX_STREAMS: u32 = 8192;

/// Threads inside a system call on a watched socket at once, and their slots by hash.
pub const MAX_MARKS: u32 = 16384;
pub const THREAD_SLOTS: usize = 1024;

/// Slots of processes that hold a watched socket, by hash (tracepoints of system calls). A power of two.
pub const HOLDER_SLOTS: u32 = 4096;

/// Watched paths and path prefixes.
pub const MAX_PATHS: u32 = 256;

/// Nested pid namespaces (`MAX_PID_NS_LEVEL` is 32 in linux/pid_namespace.h; nodes in containers use two or three).
pub const MAX_PID_LEVELS: u32 = 8;

/// Most bytes copied of a process's arguments: `runc create` with every option and an id takes about 350.
pub const ARGUMENT_BYTES: usize = 512;

/// Most bytes copied of a CNI plugin's `CNI_*` variables. The longest pod and namespace names bring `CNI_ARGS` to about 510, the
/// others take about 250.
pub const CNI_BYTES: usize = 1024;

/// Bytes of the environment that are looked at in one step.
pub const ENVIRONMENT_PIECE_BYTES: usize = 256;

/// Most bytes behind the head of an `Exec` record: the piece that reaches the limit of `CNI_*` may go beyond it.
pub const GIVEN_BYTES: usize = ARGUMENT_BYTES + CNI_BYTES + ENVIRONMENT_PIECE_BYTES;

/// Steps in one environment: a runtime started by hand hands on some hundred variables, a few of them longer than a step.
pub const MAX_ENVIRONMENT_PIECES: u32 = 512;

/// Processes followed at once: the runtime, a shim or monitor for each pod, and what they are just starting. A full node has a
/// few hundred pods.
pub const MAX_TASKS: u32 = 8192;
