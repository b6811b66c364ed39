//! Which connections are watched, and what happens on them: opened, written to, read from, closed.
//!
//! ```text
//!               connect begins                    connect succeeds, or its other end is accepted
//! (no endpoint) ──path matches──► Connecting ──────────────────────────► watched, both ends
//!       │       ──the agent──► Ignored                                        ▲
//!       └──────────────────────────── path of the listener matches ───────────┘
//! ```

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use spanlet_abi::event::{Kind, OLD_SERVER, Reason, SERVER, opened, read};

use crate::emit;
use crate::endpoints::{Refusal, endpoint, insert, old_ones_left, pair, peer_of, remove, remove_after, watched};
use crate::kernel::{field, process_in_agent_namespace};
use crate::maps::{CONNECTING, CRI, Endpoint, IGNORED, OLD, OLD_LEFT, PathKey, Track, agent, layout, load, store};
use crate::mark;
use crate::process;
use crate::socket;
use crate::walk::{PREFACE_BYTES, SKIPPED, mark_of};

/// More than a reader can read of a write that is not known yet: what a socket's buffer may be set to hold at most.
const MOST_BEYOND: u64 = 1 << 31;
/// So often in a row is no chance.
const ALWAYS_BEYOND: u32 = 8;

/// The current process in the initial pid namespace.
#[inline(always)]
pub fn global_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The thread, as marks are keyed.
#[inline(always)]
pub fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Notes which process uses this end: its id in the agent's pid namespace is looked up only when it is another than before.
#[inline(always)]
pub fn used_by_process(endpoint: *mut Endpoint, process: u32) {
    // SAFETY: points into the map.
    if unsafe { load!(endpoint, global_process) } != process {
        used_by_another(endpoint, process);
    }
}

#[inline(never)]
fn used_by_another(endpoint: *mut Endpoint, process: u32) {
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, global_process, process);
        store!(endpoint, process, process_in_agent_namespace());
        if load!(endpoint, end) == SERVER as u32 && load!(endpoint, kind) == CRI {
            process::serves_cri(load!(endpoint, process));
        }
    }
}

/// A thread begins to connect `sk`, to this path if it is one.
#[inline(always)]
pub fn connect_begins(sk: u64, path: Option<&PathKey>) {
    let kind = if process_in_agent_namespace() == agent!(process) {
        IGNORED
    } else {
        let Some(kind) = path.and_then(socket::watched_kind) else { return };
        kind | CONNECTING
    };
    let _ = insert(sk, kind); // without room for one there is none for both, which is counted when it is connected
}

/// The connect failed.
#[inline(always)]
pub fn connect_fails(sk: u64) {
    if let Some(endpoint) = endpoint(sk) {
        // SAFETY: points into the map.
        if unsafe { load!(endpoint, kind) } >= IGNORED {
            remove(sk);
        }
    }
}

/// `sk` is connected; `path` is the one its process gave, if it gave one.
#[inline(always)]
pub fn connect_succeeds(sk: u64, path: &mut PathKey, given: bool) {
    let Some(peer) = socket::peer(sk) else { return };
    let kind = match endpoint(sk) {
        // SAFETY: points into the map.
        Some(endpoint) => unsafe { load!(endpoint, kind) },
        None => {
            let Some(kind) = kind_of_bound(peer, path, given) else { return };
            kind | CONNECTING
        }
    };
    if kind == IGNORED {
        return;
    }
    open(sk, peer, kind & !CONNECTING, path);
}

/// The current process has connected `sk`; of its beginning nothing was seen. What is known of either end is of a connection whose
/// close was not seen.
#[inline(always)]
pub fn connected(sk: u64, path: &mut PathKey, given: bool) {
    let Some(peer) = socket::peer(sk) else { return };
    for sk in [sk, peer] {
        if let Some(endpoint) = watched(sk) {
            over(sk, endpoint);
        }
    }
    let of_given = if given { socket::watched_kind(path) } else { None };
    let Some(kind) = of_given.or_else(|| kind_of_bound(peer, path, given)) else { return };
    if process_in_agent_namespace() != agent!(process) {
        open(sk, peer, kind, path);
    }
}

/// What the path says that a listener is bound to; it stands for the client's if that is none. Not in line: a second path on the
/// stack of those that open connections is too much.
#[inline(never)]
fn kind_of_bound(peer: u64, path: &mut PathKey, given: bool) -> Option<u32> {
    let mut bound = socket::empty_key();
    if !socket::bound_path(peer, &mut bound) {
        return None;
    }
    let kind = socket::watched_kind(&bound)?;
    if !given {
        *path = bound;
    }
    Some(kind)
}

/// A process accepted `sk`, the server's end. It may be quicker than the client's return from `connect`.
#[inline(always)]
pub fn accepted(sk: u64, path: &mut PathKey) {
    if watched(sk).is_some() {
        return;
    }
    let Some(client) = socket::peer(sk) else { return };
    let bound = socket::bound_path(sk, path);
    let kind = match endpoint(client) {
        // SAFETY: points into the map.
        Some(endpoint) => unsafe { load!(endpoint, kind) },
        None => {
            if !bound {
                return;
            }
            let Some(kind) = socket::watched_kind(path) else { return };
            kind
        }
    };
    if kind == IGNORED {
        return;
    }
    open(client, sk, kind & !CONNECTING, path);
}

/// Both ends are watched from their first byte on.
#[inline(never)]
fn open(client: u64, server: u64, kind: u32, path: &PathKey) {
    if !socket::in_agent_network(client) && !socket::in_agent_network(server) {
        return;
    }
    let fresh = watched(client).is_none();
    let Some(connection) = socket::inode(client) else { return };
    if fresh {
        if !insert_both(client, server, kind) {
            return;
        }
        pair(client, server, connection);
        // The client's first bytes are the connection preface (RFC 9113 §3.4), walked as a frame to skip.
        if let Some(endpoint) = watched(client) {
            // SAFETY: points into the map.
            unsafe {
                store!(endpoint, frame, SKIPPED);
                store!(endpoint, left, PREFACE_BYTES);
            }
        }
    }
    tell_opened(client, kind, path, 0);
}

/// False if there is no room, which is counted, or if another processor does it.
#[inline(always)]
fn insert_both(client: u64, server: u64, kind: u32) -> bool {
    let refusal = match insert(client, kind) {
        Err(refusal) => refusal,
        Ok(()) => match insert(server, kind) {
            Err(refusal) => refusal,
            Ok(()) => return true,
        },
    };
    if refusal == Refusal::NoRoom {
        remove(client);
        emit::seen(Kind::Opened as u16);
        emit::lost(Kind::Opened as u16, Reason::MapFull);
    }
    false
}

#[inline(always)]
fn tell_opened(client: u64, kind: u32, path: &PathKey, note: u32) {
    let Some(endpoint) = watched(client) else { return };
    // SAFETY: `endpoint` points into the map.
    unsafe { emit::tell_opened(endpoint, path.data.as_ptr(), kind, note) };
}

/// The endpoint of a socket that was connected before the attach: found by its inode, while any is left to find.
#[inline(always)]
pub fn find_old(sk: u64) -> Option<*mut Endpoint> {
    if !old_ones_left() {
        return None;
    }
    let inode = socket::inode(sk)?;
    let value = *old_kind(inode)?;
    let peer = socket::peer(sk)?;
    found(inode);
    if let Some(inode) = socket::inode(peer) {
        found(inode);
    }
    let (client, server) = if value & OLD_SERVER != 0 { (peer, sk) } else { (sk, peer) };
    open_old(client, server, value & !OLD_SERVER);
    watched(sk)
}

/// One end less to be found.
#[inline(always)]
fn found(inode: u64) {
    if OLD.remove(&inode).is_ok() {
        // SAFETY: a static of the programs', not 0 while there is one to be found; what is added is -1.
        unsafe { emit::add(&raw mut OLD_LEFT, u64::MAX) };
    }
}

#[inline(always)]
fn old_kind(inode: u64) -> Option<&'static u32> {
    // SAFETY: the value is read at once; a concurrent removal can at worst leave a stale kind.
    unsafe { OLD.get(&inode) }
}

/// Both ends are watched from somewhere in the middle.
#[inline(never)]
fn open_old(client: u64, server: u64, kind: u32) {
    if watched(client).is_some() || (!socket::in_agent_network(client) && !socket::in_agent_network(server)) {
        return;
    }
    let Some(connection) = socket::inode(client) else { return };
    if !insert_both(client, server, kind) {
        return;
    }
    pair(client, server, connection);
    for sk in [client, server] {
        if let Some(endpoint) = watched(sk) {
            // SAFETY: points into the map.
            unsafe {
                store!(endpoint, track, Track::Unknown as u32);
                store!(endpoint, aligned, 0);
            }
        }
    }
    let mut path = socket::empty_key();
    socket::bound_path(server, &mut path);
    tell_opened(client, kind, &path, opened::OLD);
}

/// `bytes` are handed to the reader of a socket with `queued` buffers. While that is under way, the buffer `skb` that they come
/// from is still in the queue, and `taken` of its bytes are read with them; 0 and 0 when it is over.
#[inline(never)]
pub fn read_bytes(endpoint: *mut Endpoint, bytes: u64, queued: u32, skb: u64, taken: u32) {
    used_by_process(endpoint, global_process());
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, read, load!(endpoint, read).wrapping_add(bytes));
        let is_to_be_told = is_to_be_told(endpoint, queued, skb, taken);
        if load!(endpoint, aligned) == 0 {
            // Nobody knows what it reached: a gap for the one that is told next.
            store!(endpoint, read_sequence, load!(endpoint, read_sequence).wrapping_add(1));
        } else if is_to_be_told {
            let read = load!(endpoint, read);
            store!(endpoint, told, read);
            emit::tell(endpoint, Kind::Read, read, bytes as u32, read::ALIGNED);
        }
    }
}

/// Whether somebody may wait for this read, if it is aligned: the agent waits for those that reach the end of a message.
#[inline(always)]
unsafe fn is_to_be_told(endpoint: *mut Endpoint, queued: u32, skb: u64, taken: u32) -> bool {
    // SAFETY: both point into the map. The order matters: the points of a writer at rest are those of all that it has written.
    unsafe {
        let Some(writer) = peer_of(endpoint) else { return true };
        if mark::is_active(mark_of(writer)) {
            return true;
        }
        let (written, point, before) = (load!(writer, written), load!(writer, point), load!(writer, point_before));
        align(endpoint, written, queued, skb, taken);
        let (read, told) = (load!(endpoint, read), load!(endpoint, told));
        let last = if point > read { before } else { point };
        written < read || last > told
    }
}

/// When nothing is left to read and nothing is being written, what was read is what was written: `written` is that of a writer
/// at rest, and a write that has begun since has its bytes in the queue. But for tracepoints of sockets, where it begins when they
/// are there: a reader that is so quick just then is aligned by its next read.
#[inline(always)]
unsafe fn align(endpoint: *mut Endpoint, written: u64, queued: u32, skb: u64, taken: u32) {
    // SAFETY: points into the map.
    unsafe {
        let beyond = load!(endpoint, read).wrapping_sub(written);
        if load!(endpoint, aligned) != 0 {
            if beyond == 0 {
                store!(endpoint, beyond_times, 0);
                return;
            }
            if skb == 0 && is_of_later_write(endpoint, beyond) {
                return;
            }
        }
        // Looked at again, since a write that is over by now and counts in `written` may have begun after the first look.
        if is_emptied(queued, skb, taken) && is_emptied(socket::queued(load!(endpoint, sk)), skb, taken) {
            store!(endpoint, read, written);
            store!(endpoint, told, 0);
            store!(endpoint, aligned, 1);
        }
    }
}

/// In tracepoint mode a reader may be quicker than the thread that has queued the bytes, and read beyond what is known to be written;
/// seldom by as much again. Who always does has counted more than was written.
#[inline(never)]
unsafe fn is_of_later_write(endpoint: *mut Endpoint, beyond: u64) -> bool {
    // SAFETY: points into the map.
    unsafe {
        let times = if load!(endpoint, beyond) == beyond as u32 { load!(endpoint, beyond_times) + 1 } else { 1 };
        store!(endpoint, beyond, beyond as u32);
        store!(endpoint, beyond_times, times);
        beyond < MOST_BEYOND && times < ALWAYS_BEYOND
    }
}

/// Whether nothing is left when the read is over.
#[inline(always)]
fn is_emptied(queued: u32, skb: u64, taken: u32) -> bool {
    if skb == 0 {
        return queued == 0;
    }
    queued == 1 && unread(skb) == Some(taken)
}

/// Bytes of a buffer that earlier reads have left: the kernel notes in it how many they took.
#[inline(always)]
fn unread(skb: u64) -> Option<u32> {
    let length = field::<u32>(skb, layout!(skb_length))?;
    let consumed = field::<u32>(skb.wrapping_add(layout!(skb_control) as u64), layout!(control_consumed))?;
    Some(length.wrapping_sub(consumed))
}

/// A message ended with the last byte that was walked.
///
/// # Safety
/// `endpoint` points into the map.
#[inline(always)]
pub unsafe fn reaches_point(endpoint: *mut Endpoint) {
    // SAFETY: the caller's promise.
    unsafe {
        let (point, written) = (load!(endpoint, point), load!(endpoint, written));
        if point != written {
            store!(endpoint, point_before, point);
            store!(endpoint, point, written);
        }
    }
}

/// An end is closed.
#[inline(always)]
pub fn closed(sk: u64) {
    let Some(endpoint) = watched(sk) else {
        connect_fails(sk);
        mark::forget_connect(sk);
        return;
    };
    end(sk, endpoint);
}

/// The end `sk` is closed, or its memory another's; and so is the other end, if that is still the one it was paired with.
#[inline(never)]
pub fn over(sk: u64, endpoint: *mut Endpoint) {
    if let Some(peer) = peer_of(endpoint) {
        // SAFETY: points into the map.
        end(unsafe { load!(peer, sk) }, peer);
    }
    end(sk, endpoint);
}

/// `sk` has read all that the other end has written, and no more will come.
#[inline(always)]
pub fn read_to_the_end(sk: u64, endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    if !unsafe { mark::is_active(mark_of(endpoint)) } {
        over(sk, endpoint);
    } else if let Some(peer) = peer_of(endpoint) {
        // SAFETY: as above.
        end(unsafe { load!(peer, sk) }, peer);
        // This one ends with the write that another thread is in, which looks whether it `is_left_alone`; if it did before, here.
        // SAFETY: as above.
        if !unsafe { mark::is_active(mark_of(endpoint)) } {
            over(sk, endpoint);
        }
    }
}

/// Whether the other end was closed while this one was written to.
#[inline(always)]
pub fn is_left_alone(endpoint: *mut Endpoint) -> bool {
    // SAFETY: points into the map.
    unsafe { load!(endpoint, peer) != 0 && peer_of(endpoint).is_none() }
}

#[inline(always)]
fn end(sk: u64, endpoint: *mut Endpoint) {
    // SAFETY: points into the map.
    let sequence = unsafe { load!(endpoint, sequence) };
    remove_after(sk, || emit::tell(endpoint, Kind::Closed, 0, 0, sequence));
}

/// The endpoint of a socket, if it is still the socket that was watched: where no close was seen, its memory may be another's now.
/// A connection is known by the inode of its client's socket, which has none when its file is closed.
#[inline(always)]
pub fn still_same(endpoint: *mut Endpoint, sk: u64) -> Option<*mut Endpoint> {
    let peer = socket::peer(sk).unwrap_or(0);
    // SAFETY: points into the map.
    let (known_peer, connection, end) =
        unsafe { (load!(endpoint, peer), load!(endpoint, connection), load!(endpoint, end)) };
    if known_peer == 0 {
        return Some(endpoint); // another processor is about to pair it
    }
    let client = if end == SERVER as u32 { peer } else { sk };
    if peer == known_peer && socket::inode(client).is_none_or(|inode| inode == connection) {
        return Some(endpoint);
    }
    over(sk, endpoint);
    None
}
