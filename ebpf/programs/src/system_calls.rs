//! Tracepoint mode of kernels whose sockets have no tracepoints, or none for pages (before 6.5): `tp_btf` on the entry and exit of
//! system calls; file descriptor → file → socket.
//!
//! It runs on every system call of the node, so it looks at the call's number, then whether its process may hold a watched socket,
//! before anything else. Calls made through io_uring pass it by.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanlet_abi::counters::Program;
use spanlet_abi::layout::Action;
use spanlet_abi::limits::HOLDER_SLOTS;

use crate::connection::{self, global_process};
use crate::cost;
use crate::endpoints::{self, watched};
use crate::maps::{Endpoint, HOLDERS, Mark, layout, load, store};
use crate::mark;
use crate::registers::{self, action_of, argument, buffers};
use crate::socket;
use crate::walk;

const MSG_PEEK: u64 = 2;

/// match-proto: `void sys_enter(struct pt_regs *regs, long id)`
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(context: BtfTracePointContext) -> i32 {
    enters::<true>(context);
    0
}

/// The same for kernels that do not let programs follow pointers from the current task.
///
/// match-proto: `void sys_enter(struct pt_regs *regs, long id)`
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter_untyped(context: BtfTracePointContext) -> i32 {
    enters::<false>(context);
    0
}

/// match-proto: `void sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(context: BtfTracePointContext) -> i32 {
    exits::<true>(context);
    0
}

/// The same for kernels without `bpf_loop`.
///
/// match-proto: `void sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_bounded(context: BtfTracePointContext) -> i32 {
    exits::<false>(context);
    0
}

#[inline(always)]
fn enters<const TYPED: bool>(context: BtfTracePointContext) {
    let action = action_of(context.arg::<u64>(1));
    if action != Action::None as u8 {
        enters_one_of_those::<TYPED>(context, action);
    }
}

/// Not in line: registers that it saves are not saved at other system calls.
#[inline(never)]
fn enters_one_of_those<const TYPED: bool>(context: BtfTracePointContext, action: u8) {
    let regs = context.arg::<u64>(0);
    // Any process may become one that holds a watched socket.
    if action == Action::Connect as u8 {
        cost::of(Program::SysEnter, |_| connect_enters(regs));
    } else if action == Action::Accept as u8 {
        cost::of(Program::SysEnter, |_| {
            let _ = mark::begin(0, action);
        });
    } else if holds_watched() {
        let is_third = action == Action::Splice as u8;
        let register = if is_third { layout!(regs_argument_2) } else { layout!(regs_argument_0) };
        if let Some((sk, endpoint)) = endpoint_of::<TYPED>(argument(regs, register) as u32) {
            cost::of(Program::SysEnter, |_| enter(regs, action, sk, endpoint));
        }
    }
}

#[inline(always)]
fn exits<const LOOP: bool>(context: BtfTracePointContext) {
    if action_of(registers::number(context.arg::<u64>(0))) != Action::None as u8 {
        exits_one_of_those::<LOOP>(context);
    }
}

/// As [`enters_one_of_those`].
#[inline(never)]
fn exits_one_of_those<const LOOP: bool>(context: BtfTracePointContext) {
    if mark::may_be_active() {
        // Not by the mark, in whose place another thread may have parked that of the write.
        let counts_bytes = action_of(registers::number(context.arg::<u64>(0))) != Action::SendMessages as u8;
        cost::of(Program::SysExit, |_| exit::<LOOP>(context.arg::<i64>(1), counts_bytes));
    }
}

#[inline(always)]
fn enter(regs: u64, action: u8, sk: u64, endpoint: *mut Endpoint) {
    if action == Action::Close as u8 {
        connection::closed(sk);
        return;
    }
    let is_write = action >= Action::Write as u8;
    if !is_write && peeks(regs, action) {
        return;
    }
    let thread = connection::thread();
    if mark::begin(sk, action).is_none() || !is_write {
        return;
    }
    // SAFETY: points into the map.
    unsafe {
        let mark = mark::begin_write(endpoint, sk, thread);
        connection::used_by_process(endpoint, (thread >> 32) as u32);
        if !buffers(regs, action, mark) {
            mark::unfollow(mark);
        }
    }
}

/// Whether the current process may hold a watched socket.
#[inline(always)]
fn holds_watched() -> bool {
    // SAFETY: points into the map.
    holder_slot().is_some_and(|slot| unsafe { slot.read_volatile() } != 0)
}

/// Processes are numbered one after the other: their low bits are a hash.
#[inline(always)]
fn holder_slot() -> Option<*mut u32> {
    const { assert!(HOLDER_SLOTS.is_power_of_two()) };
    HOLDERS.get_ptr_mut(global_process() & (HOLDER_SLOTS - 1))
}

/// The watched socket behind a descriptor. Most are not watched, so that is found out first, in fewer steps.
#[inline(always)]
fn endpoint_of<const TYPED: bool>(descriptor: u32) -> Option<(u64, *mut Endpoint)> {
    let (socket, guess) = socket::guess_of_descriptor::<TYPED>(descriptor)?;
    if let Some(endpoint) = watched(guess) {
        if !socket::belongs_to(guess, socket) {
            return None;
        }
        return connection::still_same(endpoint, guess).map(|endpoint| (guess, endpoint));
    }
    if !endpoints::old_ones_left() {
        return None;
    }
    let sk = socket::of_descriptor(descriptor)?;
    Some((sk, connection::find_old(sk)?))
}

/// A read that leaves the bytes in the queue.
#[inline(always)]
fn peeks(regs: u64, action: u8) -> bool {
    let flags = if action == Action::ReceiveFrom as u8 {
        argument(regs, layout!(regs_argument_3))
    } else if action == Action::ReceiveMessage as u8 {
        argument(regs, layout!(regs_argument_2))
    } else {
        0
    };
    flags & MSG_PEEK != 0
}

#[inline(always)]
fn connect_enters(regs: u64) {
    let descriptor = argument(regs, layout!(regs_argument_0));
    let (address, length) = (argument(regs, layout!(regs_argument_1)), argument(regs, layout!(regs_argument_2)));
    let mut path = socket::empty_key();
    if !socket::given_path(address, length, false, &mut path) {
        return;
    }
    let Some(sk) = socket::of_descriptor(descriptor as u32) else { return };
    if let Some(endpoint) = watched(sk) {
        connection::still_same(endpoint, sk); // of one whose close was not seen nothing is known any more
    }
    connection::connect_begins(sk, Some(&path));
    mark::begin_connect(sk, address, length);
}

#[inline(always)]
fn exit<const LOOP: bool>(result: i64, counts_bytes: bool) {
    let Some(mark) = mark::active() else { return };
    // SAFETY: points into the map.
    let (action, sk) = unsafe { (load!(mark, action), load!(mark, sk)) };
    if action == Action::Connect as u32 {
        connect_exits(sk, mark, result);
    } else if action == Action::Accept as u32 {
        accept_exits(result);
    } else {
        exit_of_socket::<LOOP>(sk, action, result, counts_bytes);
    }
    // Only now: until then it says that the thread's write may be parked.
    // SAFETY: points into the map.
    unsafe { mark::end_of_thread(mark) };
}

/// Not in line: the walk stands there once.
#[inline(never)]
fn exit_of_socket<const LOOP: bool>(sk: u64, action: u32, result: i64, counts_bytes: bool) {
    let Some(endpoint) = watched(sk) else { return };
    if action >= Action::Write as u32 {
        write_exits::<LOOP>(endpoint, result, counts_bytes);
    } else if result > 0 {
        connection::read_bytes(endpoint, result as u64, socket::queued(sk), 0, 0);
    }
}

#[inline(always)]
fn write_exits<const LOOP: bool>(endpoint: *mut Endpoint, result: i64, counts_bytes: bool) {
    // SAFETY: points into the map.
    unsafe {
        let Some(mark) = mark::of_write(endpoint, connection::thread()) else { return };
        if result > 0 {
            if !counts_bytes && let Some(reader) = endpoints::peer_of(endpoint) {
                store!(reader, aligned, 0); // what it reads is told again when it has found nothing left
            }
            walk::accepted::<LOOP>(endpoint, if counts_bytes { result as u64 } else { 0 });
        }
        mark::end(mark);
    }
}

/// Not in line: what it keeps on the stack is none of the walk's.
#[inline(never)]
fn connect_exits(sk: u64, mark: *mut Mark, result: i64) {
    if result != 0 {
        connection::connect_fails(sk);
        return;
    }
    // SAFETY: points into the map.
    let (address, length) = unsafe { (load!(mark, address), load!(mark, address_length)) };
    let mut path = socket::empty_key();
    let given = socket::given_path(address, length, false, &mut path);
    connection::connect_succeeds(sk, &mut path, given);
    hold(sk);
}

/// As [`connect_exits`].
#[inline(never)]
fn accept_exits(result: i64) {
    if result < 0 {
        return;
    }
    let Some(sk) = socket::of_descriptor(result as u32) else { return };
    let mut path = socket::empty_key();
    connection::accepted(sk, &mut path);
    hold(sk);
}

/// The current process holds a watched socket.
#[inline(always)]
fn hold(sk: u64) {
    if watched(sk).is_some()
        && let Some(slot) = holder_slot()
    {
        // SAFETY: points into the map.
        unsafe { slot.write_volatile(1) };
    }
}
