//! What a `struct sock` says: its path, its peer, its inode, its network namespace; and which paths are watched.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use spanlet_abi::limits::PATH_BYTES;

use crate::kernel::{at_most, copy, copy_user, current_task, field, read, read_user, typed};
use crate::maps::{PATHS, PathKey, agent, layout};
use crate::message::{KIND_CSI, KIND_DRA};

const AF_UNIX: u16 = 1;
/// File type bits of `inode.i_mode` (linux/stat.h).
const S_IFMT: u16 = 0o170000;
const S_IFSOCK: u16 = 0o140000;
/// Bytes of `sockaddr_un` before `sun_path`.
const FAMILY_BYTES: u64 = 2;
const SOCK_STREAM: u16 = 1;
/// State of every socket that listens (net/tcp_states.h).
const TCP_LISTEN: u8 = 10;

/// The `struct sock` behind a file descriptor of the current process, if it is a unix stream socket.
#[inline(always)]
pub fn of_descriptor(descriptor: u32) -> Option<u64> {
    let file = file_of(descriptor)?;
    let inode = field::<u64>(file, layout!(file_inode))?;
    if field::<u16>(inode, layout!(inode_mode))? & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket = field::<u64>(file, layout!(file_private_data))?;
    let sk = field::<u64>(socket, layout!(socket_sk))?;
    if field::<u16>(sk, layout!(sock_family))? != AF_UNIX || field::<u16>(socket, layout!(socket_type))? != SOCK_STREAM
    {
        return None;
    }
    Some(sk)
}

/// What would be the `struct socket` and `struct sock` behind a file descriptor if it is a socket: the short way for the many
/// that are not in the map of endpoints. What is found there is to be checked by [`belongs_to`].
#[inline(always)]
pub fn guess_of_descriptor<const TYPED: bool>(descriptor: u32) -> Option<(u64, u64)> {
    let file = if TYPED { file_of_typed(descriptor)? } else { file_of(descriptor)? };
    let socket = field::<u64>(file, layout!(file_private_data))?;
    match field::<u64>(socket, layout!(socket_sk))? {
        0 => None,
        sk => Some((socket, sk)),
    }
}

/// Whether a `struct sock` knows this `struct socket` as its own.
#[inline(always)]
pub fn belongs_to(sk: u64, socket: u64) -> bool {
    let Some(own) = field::<u64>(sk, layout!(sock_socket)) else { return false };
    own == socket
}

/// For kernels that let programs follow pointers from the current task (5.11 and newer).
#[inline(always)]
fn file_of_typed(descriptor: u32) -> Option<u64> {
    // SAFETY: the helper has no arguments and returns a pointer whose type the verifier knows, as it does of what it points to.
    let slots: u64 = unsafe {
        let task = bpf_get_current_task_btf() as u64;
        let files: u64 = typed(task, layout!(task_files));
        if files == 0 {
            return None;
        }
        let table: u64 = typed(files, layout!(files_fdt));
        if table == 0 || descriptor >= typed::<u32>(table, layout!(fdtable_max_fds)) {
            return None;
        }
        typed(table, layout!(fdtable_fd))
    };
    in_slot(slots, descriptor)
}

#[inline(always)]
fn file_of(descriptor: u32) -> Option<u64> {
    let files = field::<u64>(current_task(), layout!(task_files))?;
    let table = field::<u64>(files, layout!(files_fdt))?;
    if descriptor >= field::<u32>(table, layout!(fdtable_max_fds))? {
        return None;
    }
    in_slot(field::<u64>(table, layout!(fdtable_fd))?, descriptor)
}

#[inline(always)]
fn in_slot(slots: u64, descriptor: u32) -> Option<u64> {
    let file = read::<u64>(slots.wrapping_add(8 * descriptor as u64))?;
    if file == 0 { None } else { Some(file) }
}

/// Whether a socket is a unix socket that listens.
///
/// # Safety
/// `sk` is a pointer that the verifier follows.
#[inline(always)]
pub unsafe fn listens(sk: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { typed::<u8>(sk, layout!(sock_state)) == TCP_LISTEN && is_unix(sk) }
}

/// Whether it is a unix socket.
///
/// # Safety
/// `sk` is a pointer that the verifier follows.
#[inline(always)]
pub unsafe fn is_unix(sk: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { typed::<u16>(sk, layout!(sock_family)) == AF_UNIX }
}

/// The other end of a connected socket.
#[inline(always)]
pub fn peer(sk: u64) -> Option<u64> {
    match field::<u64>(sk, layout!(unix_peer)) {
        Some(0) | None => None,
        peer => peer,
    }
}

/// The inode number of the socket's file; none while it was not accepted yet.
#[inline(always)]
pub fn inode(sk: u64) -> Option<u64> {
    let socket = field::<u64>(sk, layout!(sock_socket))?;
    if socket == 0 {
        return None;
    }
    // struct socket_alloc { struct socket socket; struct inode vfs_inode; }
    field::<u64>(socket.wrapping_add(layout!(socket_alloc_inode) as u64), layout!(inode_number))
}

/// Buffers in a socket's queue; many where that is known not to be readable.
#[inline(always)]
pub fn queued(sk: u64) -> u32 {
    field(sk, layout!(sock_receive_queue_length)).unwrap_or(u32::MAX)
}

/// Whether the socket was made in the agent's network namespace.
#[inline(always)]
pub fn in_agent_network(sk: u64) -> bool {
    let Some(net) = field::<u64>(sk, layout!(sock_net)) else { return false };
    field::<u32>(net, layout!(net_inum)) == Some(agent!(net_inum))
}

/// The path a socket is bound to; an accepted socket shares its listener's.
#[inline(always)]
pub fn bound_path(sk: u64, key: &mut PathKey) -> bool {
    let Some(address) = field::<u64>(sk, layout!(unix_addr)) else { return false };
    let Some(length) = field::<u32>(address, layout!(address_length)) else { return false };
    let path = address.wrapping_add(layout!(address_name) as u64 + FAMILY_BYTES);
    let length = path_bytes(length as u64);
    if length == 0 {
        return false;
    }
    // SAFETY: `length` is at most PATH_BYTES.
    unsafe { copy(key.data.as_mut_ptr(), length as u32, path) }
}

/// The path in the `sockaddr` that a process gives to `connect`.
#[inline(always)]
pub fn given_path(address: u64, length: u64, in_kernel: bool, key: &mut PathKey) -> bool {
    let family = if in_kernel { crate::kernel::read::<u16>(address) } else { read_user::<u16>(address) };
    let length = path_bytes(length);
    if family != Some(AF_UNIX) || length == 0 {
        return false;
    }
    let path = address.wrapping_add(FAMILY_BYTES);
    // SAFETY: `length` is at most PATH_BYTES.
    unsafe {
        if in_kernel {
            copy(key.data.as_mut_ptr(), length as u32, path)
        } else {
            copy_user(key.data.as_mut_ptr(), length as u32, path)
        }
    }
}

#[inline(always)]
fn path_bytes(address_length: u64) -> u64 {
    if address_length <= FAMILY_BYTES { 0 } else { at_most(address_length - FAMILY_BYTES, PATH_BYTES as u64) }
}

/// An empty key: zeroes behind a path are part of an exact match.
#[inline(always)]
pub fn empty_key() -> PathKey {
    PathKey::new(8 * PATH_BYTES as u32, [0; PATH_BYTES])
}

/// The kind of socket that is watched under this path.
#[inline(always)]
pub fn watched_kind(key: &PathKey) -> Option<u32> {
    // An abstract name (first byte zero) is no path.
    if key.data[0] == 0 {
        return None;
    }
    let kind = PATHS.get(key).copied()?;
    Some(if kind == KIND_CSI && is_dra(key) { KIND_DRA } else { kind })
}

/// Whether a plugin's socket is one of DRA: `dra.sock`, or `dra-<uid>.sock` while one instance takes over from another
/// (dynamic-resource-allocation `kubeletplugin/draplugin.go`). Others under kubelet's folder of plugins speak CSI.
#[inline(never)]
fn is_dra(key: &PathKey) -> bool {
    const NAME: &[u8; 4] = b"/dra";
    let path = (&raw const key.data).cast::<u8>();
    let mut last = false;
    let mut i = 0;
    while i < PATH_BYTES - NAME.len() {
        // SAFETY: the last byte read is inside the path.
        let at = |ahead: usize| unsafe { path.add(i + ahead).read_volatile() };
        if at(0) == NAME[0] {
            last = at(1) == NAME[1] && at(2) == NAME[2] && at(3) == NAME[3];
        }
        i += 1;
    }
    last
}
