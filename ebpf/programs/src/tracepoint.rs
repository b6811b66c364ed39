//! Tracepoint mode: `tp_btf` on what sockets send, receive and are told of (6.3 and newer).
//!
//! ```text
//! write:    queued ──► sk_data_ready(reader) ──► sock_send_length(writer, accepted)
//!                      when it began             its bytes are walked
//! read:     taken ───► sock_recv_length(reader, taken); nothing, and shut down: the connection is over
//! connect:  both ends exist ──► sk_data_ready(listener)
//! ```
//! The kernel runs these with preemption off, so that none is skipped. Where the bytes of a write are is told by the registers with
//! which the thread entered the kernel; what is written by other ways (io_uring, splice) is counted as not followed.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanlet_abi::counters::Program;
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
/// `struct sock.sk_shutdown` (net/sock.h).
const RCV_SHUTDOWN: u8 = 1;

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
    if endpoints::may_be_watched(low_half(sk)) && result > 0 {
        // SAFETY: the slot is this run's.
        cost::of(Program::Accepted, |slot| write_ends(unsafe { cost::number_of(slot, sk) }, result as u64));
    }
    0
}

/// match-proto: `void sock_recv_length(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub fn tracepoint_received(context: BtfTracePointContext) -> i32 {
    let (sk, result, flags) = (context.arg::<u64>(0), context.arg::<i32>(1), context.arg::<i32>(2));
    if !endpoints::may_be_watched(low_half(sk)) || flags & MSG_PEEK != 0 {
        return 0;
    }
    // SAFETY: the verifier knows the type of the tracepoint's argument; the slot is this run's.
    unsafe {
        if result > 0 {
            cost::of(Program::Read, |slot| reads(cost::number_of(slot, sk), result as u64));
        } else if typed::<u8>(sk, layout!(sock_shutdown)) & RCV_SHUTDOWN != 0 {
            cost::of(Program::Release, |slot| reads_end(cost::number_of(slot, sk)));
        }
    }
    0
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
        if registers::buffers(regs, action_of(registers::number(regs)), mark) {
            walk::accepted::<true>(endpoint, bytes);
        } else {
            walk::unfollowed(endpoint, bytes);
        }
        mark::end(mark_of(endpoint));
    }
}

#[inline(always)]
fn reads(sk: u64, bytes: u64) {
    if let Some(endpoint) = endpoint_of(sk) {
        connection::read_bytes(endpoint, bytes, socket::queued(sk), 0, 0);
    }
}

/// All that the other end has written is read, and no more will come.
#[inline(always)]
fn reads_end(sk: u64) {
    if let Some(endpoint) = endpoint_of(sk) {
        // SAFETY: points into the map.
        connection::over(sk, unsafe { load!(endpoint, peer) });
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
