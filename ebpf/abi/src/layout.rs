//! Where the running kernel keeps what the programs read. The agent takes it from the kernel's BTF and sets it before loading.

/// What the programs call where `bpf_rdonly_cast` is to be called: no helper has this number. The agent puts in the kernel's
/// function, where there is one.
pub const RDONLY_CAST: u32 = 0x7fff_0001;

/// A field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Offsets in bytes, and enum values; [`ABSENT`] where the kernel has none.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(C)]
        pub struct Layout {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Layout {
            /// Nothing known.
            pub const EMPTY: Self = Self { $($name: ABSENT,)* };

            /// Every field's name and value, in order.
            pub const fn fields(&self) -> [(&'static str, u32); FIELDS] {
                [$((stringify!($name), self.$name),)*]
            }
        }

        /// Number of fields.
        pub const FIELDS: usize = [$(stringify!($name),)*].len();
    };
}

layout! {
    /// Number in the kernel's BTF of a structure that begins with eight bytes that are no pointer, and of `iov_iter`; absent where
    /// the kernel has no `bpf_rdonly_cast`.
    type_of_word,
    type_of_iterator,
    /// `task_struct.files`
    task_files,
    /// `task_struct.group_leader`
    task_group_leader,
    /// `task_struct.thread_pid`
    task_thread_pid,
    /// `files_struct.fdt`
    files_fdt,
    /// `fdtable.max_fds`
    fdtable_max_fds,
    /// `fdtable.fd`
    fdtable_fd,
    /// `file.private_data`
    file_private_data,
    /// `file.f_inode`
    file_inode,
    /// `inode.i_mode`
    inode_mode,
    /// `inode.i_ino`
    inode_number,
    /// `socket.sk`
    socket_sk,
    /// `socket.type`
    socket_type,
    /// `socket_alloc.vfs_inode`
    socket_alloc_inode,
    /// `sock.sk_socket`
    sock_socket,
    /// `sock.__sk_common.skc_family`
    sock_family,
    /// `sock.__sk_common.skc_state`
    sock_state,
    /// `sock.sk_shutdown`
    sock_shutdown,
    /// `sock.__sk_common.skc_net.net`
    sock_net,
    /// `sock.sk_receive_queue.qlen`
    sock_receive_queue_length,
    /// `sk_buff.len`
    skb_length,
    /// `sk_buff.cb`, in which a unix socket keeps a `unix_skb_parms`
    skb_control,
    /// `unix_skb_parms.consumed`
    control_consumed,
    /// `net.ns.inum`
    net_inum,
    /// `unix_sock.addr`
    unix_addr,
    /// `unix_sock.peer`
    unix_peer,
    /// `unix_address.len`
    address_length,
    /// `unix_address.name`
    address_name,
    /// `pid.level`
    pid_level,
    /// `pid.numbers`
    pid_numbers,
    /// `pid_namespace.ns.inum`
    pid_namespace_inum,
    /// `msghdr.msg_iter`
    msg_iter,
    /// `iov_iter.iter_type` (one byte), or `iov_iter.type` on 5.10 (four bytes of flags)
    iter_type,
    /// 1 if `iter_type` is the flag word of 5.10
    iter_type_is_flags,
    /// `iov_iter.iov_offset`
    iter_offset,
    /// `iov_iter.count`
    iter_count,
    /// `iov_iter.__iov` or `iov_iter.iov`
    iter_iov,
    /// `iov_iter.nr_segs`
    iter_segments,
    /// `iov_iter.ubuf`
    iter_ubuf,
    /// `ITER_IOVEC`
    iter_is_iovec,
    /// `ITER_UBUF`
    iter_is_ubuf,
    /// `unix_stream_read_state.socket`
    read_state_socket,
    /// `unix_stream_read_state.flags`
    read_state_flags,
    /// `pt_regs` offset of the first six system call arguments
    regs_argument_0,
    regs_argument_1,
    regs_argument_2,
    regs_argument_3,
    /// `pt_regs` offset of the fourth argument of a kernel function; the first three are where a system call's are
    regs_function_argument_3,
    /// `pt_regs` offset of the system call's number
    regs_number,
    /// `task_struct.tgid`
    task_tgid,
    /// `task_struct.start_boottime`
    task_start_boottime,
    /// `task_struct.nsproxy`
    task_nsproxy,
    /// `task_struct.mm`
    task_mm,
    /// `task_struct.signal`
    task_signal,
    /// `task_struct.exit_code`
    task_exit_code,
    /// `task_struct.se.sum_exec_runtime`
    task_run_time,
    /// `nsproxy.mnt_ns`
    nsproxy_mnt,
    /// `mnt_namespace.ns.inum`
    mnt_namespace_inum,
    /// `mm_struct.arg_start`
    mm_arg_start,
    /// `mm_struct.arg_end`
    mm_arg_end,
    /// `mm_struct.env_start`
    mm_env_start,
    /// `mm_struct.env_end`
    mm_env_end,
    /// `signal_struct.live.counter`
    signal_live,
    /// `signal_struct.flags`
    signal_flags,
    /// `signal_struct.group_exit_code`
    signal_group_exit_code,
    /// `signal_struct.sum_sched_runtime`
    signal_run_time,
}

/// Who the agent is, so that the programs can tell its node and leave out the agent itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Agent {
    /// Process id in the initial pid namespace, as `bpf_get_current_pid_tgid` tells it; 0 = unknown.
    pub process: u32,
    /// Inode number of its network namespace.
    pub net_inum: u32,
    /// Inode number of its pid namespace.
    pub pid_inum: u32,
    /// CPUs that the machine can have: each has a slot in the map of runs.
    pub cpus: u32,
    /// The agent is woken when the ring holds more bytes than this; it looks by itself every [`crate::limits::LOOK_EVERY_MS`].
    pub wake_bytes: u32,
}

/// What a system call does, by its number (tracepoint mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    None = 0,
    Read = 1,
    /// read with flags as fourth argument (recvfrom)
    ReceiveFrom = 2,
    /// read with flags as third argument (recvmsg)
    ReceiveMessage = 3,
    Write = 4,
    WriteVector = 5,
    SendMessage = 6,
    Connect = 7,
    Accept = 8,
    Close = 9,
    /// a write whose bytes are not followed (sendfile)
    Unfollowed = 10,
    /// the same, to the socket that is its third argument (splice)
    Splice = 11,
    /// the same, and its result does not tell how many they are (sendmmsg)
    SendMessages = 12,
}

/// System call numbers below this are looked up.
pub const SYSTEM_CALLS: usize = 512;

const _: () = assert!(size_of::<Layout>() == 4 * FIELDS);
const _: () = assert!(size_of::<Agent>() == 20);
