//! kprobe mode: for kernels that can preempt inside a program. Never a return probe: blocked readers hold its few instances.
//!
//! What was accepted is walked at `sock_def_readable`, which the sending thread calls once for each buffer it has queued: what
//! has left the iterator since the mark went to the peer. The connecting thread calls it for the listener, when both ends exist.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use spanlet_abi::counters::Program;
use spanlet_abi::layout::Action;

use crate::connection;
use crate::cost;
use crate::endpoints::{self, watched};
use crate::fentry;
use crate::iterator;
use crate::kernel::field;
use crate::maps::{Endpoint, Mark, layout, load, store};
use crate::mark;
use crate::socket;
use crate::walk;

/// Of the mark of a page, which is sent whole or not at all.
const NO_MESSAGE: u64 = 0;

/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[kprobe]
pub fn kprobe_send(context: ProbeContext) -> u32 {
    let Some(socket) = argument(&context, layout!(regs_argument_0)) else { return 0 };
    let Some(sk) = field::<u64>(socket, layout!(socket_sk)) else { return 0 };
    if endpoints::may_be_watched(sk as u32) {
        cost::of(Program::Send, |_| {
            let Some(message) = argument(&context, layout!(regs_argument_1)) else { return };
            // SAFETY: the message is read as kernel memory.
            unsafe { fentry::send_begins::<false>(sk, message) };
        });
    }
    0
}

/// Up to 6.4, splice and sendfile send page by page.
///
/// match-proto: `ssize_t unix_stream_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`
#[kprobe]
pub fn kprobe_send_page(context: ProbeContext) -> u32 {
    let Some(socket) = argument(&context, layout!(regs_argument_0)) else { return 0 };
    let Some(sk) = field::<u64>(socket, layout!(socket_sk)) else { return 0 };
    if endpoints::may_be_watched(sk as u32) {
        cost::of(Program::SendPage, |_| {
            let Some(bytes) = argument(&context, layout!(regs_function_argument_3)) else { return };
            fentry::page_begins(sk, NO_MESSAGE, bytes);
        });
    }
    0
}

/// match-proto: `void sock_def_readable(struct sock *sk)`
#[kprobe]
pub fn kprobe_readable(context: ProbeContext) -> u32 {
    readable::<true>(&context);
    0
}

/// The same for kernels without `bpf_loop`.
///
/// match-proto: `void sock_def_readable(struct sock *sk)`
#[kprobe]
pub fn kprobe_readable_bounded(context: ProbeContext) -> u32 {
    readable::<false>(&context);
    0
}

#[inline(always)]
fn readable<const LOOP: bool>(context: &ProbeContext) {
    let Some(told) = argument(context, layout!(regs_argument_0)) else { return };
    if !endpoints::may_be_known(told as u32) && !mark::may_be_active() {
        return;
    }
    cost::of(Program::Accepted, |_| {
        if let Some(reader) = watched(told) {
            queued::<LOOP>(reader);
        } else if let Some(mark) = mark::active() {
            connected(mark);
        }
    });
}

/// match-proto: `int unix_stream_read_actor(struct sk_buff *skb, int skip, int chunk, struct unix_stream_read_state *state)`
#[kprobe]
pub fn kprobe_read(context: ProbeContext) -> u32 {
    let Some(state) = argument(&context, layout!(regs_function_argument_3)) else { return 0 };
    let Some(socket) = field(state, layout!(read_state_socket)) else { return 0 };
    let Some(sk) = field::<u64>(socket, layout!(socket_sk)) else { return 0 };
    if !endpoints::may_be_watched(sk as u32) {
        return 0;
    }
    cost::of(Program::Read, |_| {
        let Some(flags) = field(state, layout!(read_state_flags)) else { return };
        let Some(skb) = argument(&context, layout!(regs_argument_0)) else { return };
        let Some(skip) = argument(&context, layout!(regs_argument_1)) else { return };
        let Some(chunk) = argument(&context, layout!(regs_argument_2)) else { return };
        fentry::read_actor(sk, skb, skip as i32, chunk as i32, flags, None);
    });
    0
}

/// match-proto: `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[kprobe]
pub fn kprobe_connect(context: ProbeContext) -> u32 {
    cost::of(Program::Connect, |_| {
        let Some(socket) = argument(&context, layout!(regs_argument_0)) else { return };
        let Some(address) = argument(&context, layout!(regs_argument_1)) else { return };
        let Some(length) = argument(&context, layout!(regs_argument_2)) else { return };
        fentry::connect_begins::<true>(socket, address, length as u32);
    });
    0
}

/// match-proto: `void unix_release_sock(struct sock *sk, int embrion)`
#[kprobe]
pub fn kprobe_release(context: ProbeContext) -> u32 {
    cost::of(Program::Release, |_| {
        let Some(sk) = argument(&context, layout!(regs_argument_0)) else { return };
        connection::closed(sk);
    });
    0
}

/// An argument of the probed function: its register's place comes from BTF, so that one object serves every architecture. The
/// usual places are read without a helper's call, for which the place must stand in the instruction.
#[inline(always)]
fn argument(context: &ProbeContext, register: u32) -> Option<u64> {
    macro_rules! at {
        ($($offset:literal)*) => {
            match register {
                $($offset => {
                    let value: u64;
                    // SAFETY: inside `struct pt_regs` of every architecture.
                    unsafe {
                        core::arch::asm!(
                            concat!("{0} = *(u64 *)({1} + ", $offset, ")"),
                            out(reg) value,
                            in(reg) context.as_ptr(),
                            options(readonly, nostack)
                        );
                    }
                    Some(value)
                })*
                _ => field(context.as_ptr() as u64, register),
            }
        };
    }
    // x86-64: di, si, dx, cx; arm64: x0 to x3
    at!(112 104 96 88 0 8 16 24)
}

/// Not in line: what it keeps on the stack is none of the walk's.
#[inline(never)]
fn connected(mark: *mut Mark) {
    // SAFETY: points into the map.
    let (sk, action, address, length) =
        unsafe { (load!(mark, sk), load!(mark, action), load!(mark, address), load!(mark, address_length)) };
    if action != Action::Connect as u32 {
        return;
    }
    let mut path = socket::empty_key();
    let given = socket::given_path(address, length, true, &mut path);
    connection::connect_succeeds(sk, &mut path, given);
    // SAFETY: points into the map.
    unsafe { mark::end_of_thread(mark) };
}

/// A mark that a refused send left over is recognised: it would claim more than its iterator held. Not so that of a page, but the
/// next write takes its place.
#[inline(always)]
fn queued<const LOOP: bool>(reader: *mut Endpoint) {
    let Some(endpoint) = endpoints::peer_of(reader) else { return };
    // SAFETY: points into the map.
    unsafe {
        let Some(mark) = mark::of_write(endpoint, connection::thread()) else { return };
        let (message, count, accepted) = (load!(mark, message), load!(mark, count), load!(mark, accepted));
        let left = if message == NO_MESSAGE { 0 } else { iterator::count(message).unwrap_or(u64::MAX) };
        let taken = count.wrapping_sub(left);
        if left > count || taken <= accepted {
            return;
        }
        store!(mark, accepted, taken);
        walk::accepted::<LOOP>(endpoint, taken - accepted);
        if left == 0 {
            mark::end(mark);
        }
    }
}
