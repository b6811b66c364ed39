//! Where this kernel keeps what the programs read: offsets and enum values from its BTF.
//!
//! A field that is missing disables only what needs it; [`LayoutReport::missing`] names it.

use btfparse::{Integer32Value, Offset, Readable, TypeInformation, TypeVariant};
use spanlet_abi::layout::{ABSENT, Layout};

use std::collections::{HashMap, HashSet};

use super::cast;

/// Where the kernel shows its own types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the layout could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("reading the kernel's types from {path} (kernel option CONFIG_DEBUG_INFO_BTF)")]
    Read { path: String, source: std::io::Error },
    #[error("parsing the kernel's types: {0}")]
    Parse(String),
}

/// A kernel's layout, and what it lacks.
#[derive(Debug, Clone)]
pub struct LayoutReport {
    pub layout: Layout,
    /// `structure.field` of those not found, alternatives that another kernel has left out.
    pub missing: Vec<&'static str>,
    /// The same of what only execs need.
    pub missing_for_execs: Vec<&'static str>,
    /// Number of `bpf_rdonly_cast`, where the kernel has it.
    pub rdonly_cast: Option<u32>,
    /// Names of the kernel functions that have BTF, of those asked for.
    pub functions: Vec<&'static str>,
    /// The same of tracepoints.
    pub tracepoints: Vec<&'static str>,
    /// Values of `preempt_dynamic_mode` with which the kernel does not preempt its own work, as far as it names them.
    pub without_preemption: Vec<u32>,
}

/// Kernel functions that programs attach to.
pub const FUNCTIONS: [&str; 5] =
    ["unix_stream_sendmsg", "unix_stream_read_actor", "unix_stream_connect", "unix_release_sock", "sock_def_readable"];

/// The same of kernels before 6.5; later ones do there by the others what this did.
pub const FUNCTIONS_UNTIL_6_4: [&str; 1] = ["unix_stream_sendpage"];

/// Tracepoints of sockets that programs attach to.
pub const TRACEPOINTS: [&str; 3] = ["sk_data_ready", "sock_send_length", "sock_recv_length"];

/// What the kernel's types call a tracepoint, before its name.
const OF_TRACEPOINT: &str = "btf_trace_";

/// Reads the layout of the running kernel.
pub fn of_running_kernel() -> Result<LayoutReport, LayoutError> {
    let bytes =
        std::fs::read(KERNEL_BTF).map_err(|source| LayoutError::Read { path: KERNEL_BTF.to_owned(), source })?;
    of_btf(&bytes)
}

/// Reads the layout out of a kernel's BTF.
pub fn of_btf(bytes: &[u8]) -> Result<LayoutReport, LayoutError> {
    let types = Types::parse(bytes)?;
    let mut layout = Layout::EMPTY;
    let mut missing = offsets(&types, FIELDS, &mut layout);
    let missing_for_execs = offsets(&types, FIELDS_OF_PROCESSES, &mut layout);
    iterator(&types, &mut layout, &mut missing);
    registers(&types, &mut layout, &mut missing);
    let rdonly_cast = casts(&types, &mut layout);
    let all = FUNCTIONS.into_iter().chain(FUNCTIONS_UNTIL_6_4);
    let functions = all.filter(|name| types.functions.contains_key(*name)).collect();
    let tracepoints = TRACEPOINTS.into_iter().filter(|name| types.tracepoints.contains(*name)).collect();
    let names = ["preempt_dynamic_none", "preempt_dynamic_voluntary"];
    let without_preemption = names.into_iter().filter_map(|name| types.values.get(name).copied()).collect();
    Ok(LayoutReport { layout, missing, missing_for_execs, rdonly_cast, functions, tracepoints, without_preemption })
}

/// Sets what is found; names what is not.
fn offsets(types: &Types, fields: &[(Field, &str, &'static str)], layout: &mut Layout) -> Vec<&'static str> {
    let mut missing = Vec::new();
    for (field, structure, path) in fields {
        match types.offset(structure, path) {
            Some(offset) => *field(layout) = offset,
            None => missing.push(*path),
        }
    }
    missing
}

type Field = fn(&mut Layout) -> &mut u32;

/// Which field of [`Layout`] is where: structure, path within it.
const FIELDS: &[(Field, &str, &str)] = &[
    (|l| &mut l.task_files, "task_struct", "files"),
    (|l| &mut l.task_group_leader, "task_struct", "group_leader"),
    (|l| &mut l.task_thread_pid, "task_struct", "thread_pid"),
    (|l| &mut l.files_fdt, "files_struct", "fdt"),
    (|l| &mut l.fdtable_max_fds, "fdtable", "max_fds"),
    (|l| &mut l.fdtable_fd, "fdtable", "fd"),
    (|l| &mut l.file_private_data, "file", "private_data"),
    (|l| &mut l.file_inode, "file", "f_inode"),
    (|l| &mut l.inode_mode, "inode", "i_mode"),
    (|l| &mut l.inode_number, "inode", "i_ino"),
    (|l| &mut l.socket_sk, "socket", "sk"),
    (|l| &mut l.socket_type, "socket", "type"),
    (|l| &mut l.socket_alloc_inode, "socket_alloc", "vfs_inode"),
    (|l| &mut l.sock_socket, "sock", "sk_socket"),
    (|l| &mut l.sock_family, "sock", "__sk_common.skc_family"),
    (|l| &mut l.sock_state, "sock", "__sk_common.skc_state"),
    (|l| &mut l.sock_shutdown, "sock", "sk_shutdown"),
    (|l| &mut l.sock_net, "sock", "__sk_common.skc_net.net"),
    (|l| &mut l.sock_receive_queue_length, "sock", "sk_receive_queue.qlen"),
    (|l| &mut l.skb_length, "sk_buff", "len"),
    (|l| &mut l.skb_control, "sk_buff", "cb"),
    (|l| &mut l.control_consumed, "unix_skb_parms", "consumed"),
    (|l| &mut l.net_inum, "net", "ns.inum"),
    (|l| &mut l.unix_addr, "unix_sock", "addr"),
    (|l| &mut l.unix_peer, "unix_sock", "peer"),
    (|l| &mut l.address_length, "unix_address", "len"),
    (|l| &mut l.address_name, "unix_address", "name"),
    (|l| &mut l.pid_level, "pid", "level"),
    (|l| &mut l.pid_numbers, "pid", "numbers"),
    (|l| &mut l.pid_namespace_inum, "pid_namespace", "ns.inum"),
    (|l| &mut l.msg_iter, "msghdr", "msg_iter"),
    (|l| &mut l.iter_offset, "iov_iter", "iov_offset"),
    (|l| &mut l.iter_count, "iov_iter", "count"),
    (|l| &mut l.iter_segments, "iov_iter", "nr_segs"),
    (|l| &mut l.read_state_socket, "unix_stream_read_state", "socket"),
    (|l| &mut l.read_state_flags, "unix_stream_read_state", "flags"),
];

/// What only the programs of execs read.
const FIELDS_OF_PROCESSES: &[(Field, &str, &str)] = &[
    (|l| &mut l.task_tgid, "task_struct", "tgid"),
    (|l| &mut l.task_start_boottime, "task_struct", "start_boottime"),
    (|l| &mut l.task_nsproxy, "task_struct", "nsproxy"),
    (|l| &mut l.task_mm, "task_struct", "mm"),
    (|l| &mut l.task_signal, "task_struct", "signal"),
    (|l| &mut l.task_exit_code, "task_struct", "exit_code"),
    (|l| &mut l.task_run_time, "task_struct", "se.sum_exec_runtime"),
    (|l| &mut l.nsproxy_mnt, "nsproxy", "mnt_ns"),
    (|l| &mut l.mnt_namespace_inum, "mnt_namespace", "ns.inum"),
    (|l| &mut l.mm_arg_start, "mm_struct", "arg_start"),
    (|l| &mut l.mm_arg_end, "mm_struct", "arg_end"),
    (|l| &mut l.mm_env_start, "mm_struct", "env_start"),
    (|l| &mut l.mm_env_end, "mm_struct", "env_end"),
    (|l| &mut l.signal_live, "signal_struct", "live.counter"),
    (|l| &mut l.signal_flags, "signal_struct", "flags"),
    (|l| &mut l.signal_group_exit_code, "signal_struct", "group_exit_code"),
    (|l| &mut l.signal_run_time, "signal_struct", "sum_sched_runtime"),
];

/// `struct iov_iter` has three shapes: a word of flags (5.10), `iter_type` with `iov` (to 6.3), `iter_type` with `__iov`.
fn iterator(types: &Types, layout: &mut Layout, missing: &mut Vec<&'static str>) {
    let byte = types.offset("iov_iter", "iter_type");
    let word = types.offset("iov_iter", "type");
    layout.iter_type_is_flags = u32::from(byte.is_none() && word.is_some());
    set(&mut layout.iter_type, byte.or(word), "iter_type", missing);
    let vectors = types.offset("iov_iter", "__iov").or_else(|| types.offset("iov_iter", "iov"));
    set(&mut layout.iter_iov, vectors, "iov", missing);
    set(&mut layout.iter_is_iovec, types.values.get("ITER_IOVEC").copied(), "ITER_IOVEC", missing);
    // Not there on 5.10: no message is missed for it.
    layout.iter_ubuf = types.offset("iov_iter", "ubuf").unwrap_or(ABSENT);
    layout.iter_is_ubuf = types.values.get("ITER_UBUF").copied().unwrap_or(ABSENT);
}

/// Where `struct pt_regs` keeps arguments, of system calls and of functions, and a system call's number.
fn registers(types: &Types, layout: &mut Layout, missing: &mut Vec<&'static str>) {
    let fields = [
        &mut layout.regs_argument_0,
        &mut layout.regs_argument_1,
        &mut layout.regs_argument_2,
        &mut layout.regs_argument_3,
        &mut layout.regs_function_argument_3,
        &mut layout.regs_number,
    ];
    let x86 = ["di", "si", "dx", "r10", "cx", "orig_ax"];
    if types.offset("pt_regs", "orig_ax").is_some() {
        for (field, name) in fields.into_iter().zip(x86) {
            set(field, types.offset("pt_regs", name), name, missing);
        }
        return;
    }
    // arm64: the arguments are x0 to x3 of user_regs.regs.
    let first = types.offset("pt_regs", "user_regs.regs").or_else(|| types.offset("pt_regs", "regs"));
    let register = |number: u32| first.map(|first| first + 8 * number);
    let number = types.offset("pt_regs", "syscallno");
    let offsets = [register(0), register(1), register(2), register(3), register(3), number];
    for (field, offset) in fields.into_iter().zip(offsets) {
        set(field, offset, "pt_regs", missing);
    }
}

/// Types that addresses may be taken for; without the function that does it none, and nothing is missing.
fn casts(types: &Types, layout: &mut Layout) -> Option<u32> {
    let function = *types.functions.get(cast::FUNCTION)?;
    let (word, iterator) = (types.structures.get(WORD)?, types.structures.get("iov_iter")?);
    layout.type_of_word = *word;
    layout.type_of_iterator = *iterator;
    Some(function)
}

/// A structure that begins with eight bytes that are no pointer.
const WORD: &str = "timespec64";

fn set(field: &mut u32, value: Option<u32>, name: &'static str, missing: &mut Vec<&'static str>) {
    match value {
        Some(value) => *field = value,
        None => missing.push(name),
    }
}

/// What the names of enum values begin with that are looked up.
const VALUES: [&str; 2] = ["ITER_", "preempt_dynamic_"];

/// The kernel's types by name. Functions, typedefs and structures may share one, so each kind has its own table.
struct Types {
    information: TypeInformation,
    structures: HashMap<String, u32>,
    /// Values of enums that begin with one of [`VALUES`].
    values: HashMap<String, u32>,
    functions: HashMap<String, u32>,
    tracepoints: HashSet<String>,
}

impl Types {
    fn parse(bytes: &[u8]) -> Result<Self, LayoutError> {
        let information =
            TypeInformation::new(&Bytes(bytes)).map_err(|error| LayoutError::Parse(format!("{error:?}")))?;
        let mut structures = HashMap::new();
        let mut values = HashMap::new();
        let mut functions = HashMap::new();
        let mut tracepoints = HashSet::new();
        let wanted: HashSet<&str> = FIELDS
            .iter()
            .chain(FIELDS_OF_PROCESSES)
            .map(|(_, structure, _)| *structure)
            .chain(["iov_iter", "pt_regs", WORD])
            .collect();
        for (id, kind) in information.get() {
            match kind {
                TypeVariant::Struct(_) => {
                    if let Some(name) = information.name_of(*id).filter(|name| wanted.contains(name.as_str())) {
                        structures.entry(name).or_insert(*id);
                    }
                }
                TypeVariant::Enum(values_of) => {
                    let wanted = |name: &str| VALUES.iter().any(|prefix| name.starts_with(prefix));
                    for value in values_of.named_value_list().iter().filter(|value| wanted(&value.name)) {
                        let number = match value.value {
                            Integer32Value::Signed(number) => number as u32,
                            Integer32Value::Unsigned(number) => number,
                        };
                        values.insert(value.name.clone(), number);
                    }
                }
                TypeVariant::Func(_) => {
                    let mut all = FUNCTIONS.iter().chain(&FUNCTIONS_UNTIL_6_4).chain([&cast::FUNCTION]);
                    let wanted = |name: &String| all.any(|wanted| wanted == name);
                    if let Some(name) = information.name_of(*id).filter(wanted) {
                        functions.insert(name, *id);
                    }
                }
                TypeVariant::Typedef(_) => {
                    let name = information.name_of(*id).unwrap_or_default();
                    let tracepoint = name.strip_prefix(OF_TRACEPOINT).filter(|name| TRACEPOINTS.contains(name));
                    tracepoints.extend(tracepoint.map(str::to_owned));
                }
                _ => {}
            }
        }
        Ok(Self { information, structures, values, functions, tracepoints })
    }

    /// Bytes from the structure's start.
    fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let id = self.structures.get(structure)?;
        match self.information.offset_of(*id, path).ok()?.1 {
            Offset::ByteOffset(offset) => Some(offset),
            Offset::BitOffsetAndSize(..) => None,
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl Readable for Bytes<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = offset as usize;
        match start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end)) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(btfparse::Error::new(btfparse::ErrorKind::IOError, "the types end early")),
        }
    }
}
