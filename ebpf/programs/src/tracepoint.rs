//! Tracepoint mode: `tp_btf` on what sockets send, receive and are told of (6.5 and newer).
//!
//! ```text
//! write:    queued ──► sk_data_ready(reader) ──► sock_send_length(writer, accepted)
//!                      when it began             its bytes are walked
//! read:     taken ───► sock_recv_length(reader, taken); nothing, and shut down: the connection is over
//! connect:  both ends exist ──► sk_data_ready(listener)
//! ```
//! Up to 6.18 the kernel runs these with preemption off: what is done to unix sockets is never skipped, only what an interrupt does to
//! others meanwhile. Where the bytes of a write are is told by the registers with which the thread entered the kernel; what is written
//! by other ways (io_uring, splice) is counted as not followed.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanlet_abi::counters::Program;
use spanlet_abi::event::CLIENT;
use spanlet_abi::layout::Action;

use crate::connection;
use crate::cost;
use crate::endpoints::{self, peer_of, watched};
use crate::kernel::{low_half, typed};
use crate::maps::{Endpoint, layout, load};
use crate::mark;
use crate::registers::{self, action_of, argument};
use crate::socket;
use crate::walk::{self, mark_of};

const MSG_PEEK: i32 = 2;
/// `struct sock.sk_shutdown` (net/sock.h): the other end writes no more.
const RCV_SHUTDOWN: u8 = 1;
/// Nor does it read: it is closed.
const SHUTDOWN_MASK: u8 = 3;

/// match-proto: `void sk_data_ready(const struct sock *sk)`
#[btf_tracepoint(function = "sk_data_ready")]
pub fn tracepoint_ready(context: BtfTracePointContext) -> i32 {
    let sk = context.arg::<u64>(0);
    // SAFETY: the verifier knows the type of the tracepoint's argument.
    if unsafe { socket::listens(sk) } {
        cost::of(Program::Connected, |_| connected());
    } else if endpoints::may_be_known(low_half(sk)) {
        // SAFETY: the slot is this run's.
        cost::of(Program::Send, |slot| write_begins(unsafe { cost::number_of(slot, sk) }));
    }
    0
}

/// match-proto: `void sock_send_length(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_send_length")]
pub fn tracepoint_sent(context: BtfTracePointContext) -> i32 {
    let (sk, result) = (context.arg::<u64>(0), context.arg::<i32>(1));
    // SAFETY: the verifier knows the type of the tracepoint's argument.
    if unsafe { may_be_watched(sk) } && result > 0 {
        // SAFETY: the slot is this run's.
        cost::of(Program::Accepted, |slot| write_ends(unsafe { cost::number_of(slot, sk) }, result as u64));
    }
    0
}

/// match-proto: `void sock_recv_length(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub fn tracepoint_received(context: BtfTracePointContext) -> i32 {
    let (sk, result, flags) = (context.arg::<u64>(0), context.arg::<i32>(1), context.arg::<i32>(2));
    // SAFETY: the verifier knows the type of the tracepoint's argument; the slot is this run's.
    unsafe {
        if !may_be_watched(sk) || flags & MSG_PEEK != 0 {
            return 0;
        }
        let shutdown: u8 = typed(sk, layout!(sock_shutdown));
        if result > 0 {
            cost::of(Program::Read, |slot| reads(cost::number_of(slot, sk), result as u64));
        } else if shutdown & RCV_SHUTDOWN != 0 {
            cost::of(Program::Release, |slot| reads_end(cost::number_of(slot, sk), shutdown));
        }
    }
    0
}

/// These tracepoints are those of every kind of socket.
///
/// # Safety
/// `sk` is a pointer that the verifier follows.
#[inline(always)]
unsafe fn may_be_watched(sk: u64) -> bool {
    // SAFETY: the caller's promise.
    endpoints::may_be_known(low_half(sk)) || (endpoints::old_ones_left() && unsafe { socket::is_unix(sk) })
}

/// The thread that has queued a first buffer for `reader`. Later ones of the same write leave its mark as it is.
#[inline(always)]
fn write_begins(reader: u64) {
    let Some(writer) = watched(reader).and_then(peer_of) else { return };
    let thread = connection::thread();
    // SAFETY: points into the map.
    unsafe {
        let mark = mark_of(writer);
        if !mark::is_active(mark) || load!(mark, thread) != thread {
            mark::begin_write(writer, load!(writer, sk), thread);
        }
    }
}

#[inline(always)]
fn write_ends(sk: u64, bytes: u64) {
    let Some(endpoint) = endpoint_of(sk) else { return };
    let thread = connection::thread();
    connection::used_by_process(endpoint, (thread >> 32) as u32);
    // SAFETY: points into the map.
    unsafe {
        let mark = match mark::of_write(endpoint, thread) {
            Some(mark) => mark,
            None => mark::begin_write(endpoint, sk, thread),
        };
        let regs = entry_registers();
        if writes_to(sk, regs) && registers::buffers(regs, action_of(registers::number(regs)), mark) {
            walk::accepted::<true>(endpoint, bytes);
        } else {
            walk::unfollowed(endpoint, bytes);
        }
        mark::end(mark_of(endpoint));
    }
    if connection::is_left_alone(endpoint) {
        connection::over(sk, endpoint);
    }
}

/// Whether the system call is about this socket: what io_uring writes may be written within any other.
#[inline(always)]
fn writes_to(sk: u64, regs: u64) -> bool {
    let descriptor = argument(regs, layout!(regs_argument_0)) as u32;
    socket::guess_of_descriptor::<true>(descriptor).is_some_and(|(_, of_descriptor)| of_descriptor == sk)
}

#[inline(always)]
fn reads(sk: u64, bytes: u64) {
    if let Some(endpoint) = endpoint_of(sk) {
        connection::read_bytes(endpoint, bytes, socket::queued(sk), 0, 0);
    }
}

/// The other end writes no more. A client that does so may still wait for its answers; of a server's none is to come.
#[inline(always)]
fn reads_end(sk: u64, shutdown: u8) {
    let Some(endpoint) = endpoint_of(sk) else { return };
    // SAFETY: points into the map.
    let is_over = unsafe { load!(endpoint, end) } == CLIENT as u32 || shutdown == SHUTDOWN_MASK;
    if is_over && socket::queued(sk) == 0 {
        connection::read_to_the_end(sk, endpoint);
    }
}

/// A watched socket, also one that was connected before the attach.
#[inline(always)]
fn endpoint_of(sk: u64) -> Option<*mut Endpoint> {
    match watched(sk) {
        Some(endpoint) => connection::still_same(endpoint, sk),
        None => connection::find_old(sk),
    }
}

/// The current thread has just connected one of its sockets. Not in line: what it keeps on the stack is none of the others'.
#[inline(never)]
fn connected() {
    let regs = entry_registers();
    if action_of(registers::number(regs)) != Action::Connect as u8 {
        return;
    }
    let Some(sk) = socket::of_descriptor(argument(regs, layout!(regs_argument_0)) as u32) else { return };
    let (address, length) = (argument(regs, layout!(regs_argument_1)), argument(regs, layout!(regs_argument_2)));
    let mut path = socket::empty_key();
    let given = socket::given_path(address, length, false, &mut path);
    connection::connected(sk, &mut path, given);
}

/// With what the current thread entered the kernel; of a thread of the kernel's own nothing that a system call has.
#[inline(always)]
fn entry_registers() -> u64 {
    // SAFETY: the first helper has no arguments, the other takes what that returns; the verifier knows the types of both.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
}
