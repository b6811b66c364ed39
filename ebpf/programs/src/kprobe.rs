//! kprobe mode: for kernels that can preempt inside a program. Never a return probe: blocked readers hold its few instances.
//!
//! What was accepted is walked at `sock_def_readable`, which the sending thread calls once for each buffer it has queued: what
//! has left the iterator since the mark went to the peer. The connecting thread calls it for the listener, when both ends exist.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use spanlet_abi::counters::Program;
use spanlet_abi::layout::Action;

use crate::connection::{self, watched};
use crate::cost;
use crate::fentry;
use crate::iterator;
use crate::kernel::field;
use crate::maps::{Mark, layout, load, store};
use crate::mark;
use crate::socket;

/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[kprobe]
pub fn kprobe_send(context: ProbeContext) -> u32 {
    cost::of(Program::Send, || {
        let Some(socket) = argument(&context, layout!(regs_argument_0)) else { return };
        let Some(message) = argument(&context, layout!(regs_argument_1)) else { return };
        let Some(sk) = field(socket, layout!(socket_sk)) else { return };
        fentry::send_begins(sk, message);
    });
    0
}

/// match-proto: `void sock_def_readable(struct sock *sk)`
#[kprobe]
pub fn kprobe_readable(context: ProbeContext) -> u32 {
    cost::of(Program::Accepted, || readable::<true>(&context));
    0
}

/// The same for kernels without `bpf_loop`.
///
/// match-proto: `void sock_def_readable(struct sock *sk)`
#[kprobe]
pub fn kprobe_readable_bounded(context: ProbeContext) -> u32 {
    cost::of(Program::Accepted, || readable::<false>(&context));
    0
}

#[inline(always)]
fn readable<const LOOP: bool>(context: &ProbeContext) {
    let Some(mark) = mark::active() else { return };
    // SAFETY: points into the map.
    let (sk, action) = unsafe { (load!(mark, sk), load!(mark, action)) };
    if action == Action::Connect as u32 {
        connected(sk, mark);
        return;
    }
    let Some(told) = argument(context, layout!(regs_argument_0)) else { return };
    let Some(peer) = socket::peer(sk) else { return };
    if peer == told {
        queued::<LOOP>(sk, mark);
    }
}

/// match-proto: `int unix_stream_read_actor(struct sk_buff *skb, int skip, int chunk, struct unix_stream_read_state *state)`
#[kprobe]
pub fn kprobe_read(context: ProbeContext) -> u32 {
    cost::of(Program::Read, || {
        let Some(state) = argument(&context, layout!(regs_function_argument_3)) else { return };
        let Some(socket) = field(state, layout!(read_state_socket)) else { return };
        let Some(sk) = field(socket, layout!(socket_sk)) else { return };
        if !connection::may_be_watched(sk) {
            return;
        }
        let Some(flags) = field(state, layout!(read_state_flags)) else { return };
        let Some(skb) = argument(&context, layout!(regs_argument_0)) else { return };
        let Some(skip) = argument(&context, layout!(regs_argument_1)) else { return };
        let Some(chunk) = argument(&context, layout!(regs_argument_2)) else { return };
        fentry::read_actor(sk, skb, skip as i32, chunk as i32, flags);
    });
    0
}

/// match-proto: `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[kprobe]
pub fn kprobe_connect(context: ProbeContext) -> u32 {
    cost::of(Program::Connect, || {
        let Some(socket) = argument(&context, layout!(regs_argument_0)) else { return };
        let Some(address) = argument(&context, layout!(regs_argument_1)) else { return };
        let Some(length) = argument(&context, layout!(regs_argument_2)) else { return };
        fentry::connect_begins(socket, address, length as u32);
    });
    0
}

/// match-proto: `void unix_release_sock(struct sock *sk, int embrion)`
#[kprobe]
pub fn kprobe_release(context: ProbeContext) -> u32 {
    cost::of(Program::Release, || {
        let Some(sk) = argument(&context, layout!(regs_argument_0)) else { return };
        connection::closed(sk);
    });
    0
}

/// An argument of the probed function: its register's place comes from BTF, so that one object serves every architecture.
#[inline(always)]
fn argument(context: &ProbeContext, register: u32) -> Option<u64> {
    field(context.as_ptr() as u64, register)
}

#[inline(always)]
fn connected(sk: u64, mark: *mut Mark) {
    // SAFETY: points into the map.
    let (address, length) = unsafe { (load!(mark, address), load!(mark, address_length)) };
    let mut path = socket::empty_key();
    let given = socket::given_path(address, length, true, &mut path);
    connection::connect_succeeds(sk, &mut path, given);
    // SAFETY: points into the map.
    unsafe { mark::end(mark) };
}

/// A mark that a refused send left over is recognised: it would claim more than its iterator held.
#[inline(always)]
fn queued<const LOOP: bool>(sk: u64, mark: *mut Mark) {
    let Some(endpoint) = watched(sk) else { return };
    // SAFETY: both point into their maps.
    unsafe {
        let (message, count, accepted) = (load!(mark, message), load!(mark, count), load!(mark, accepted));
        let Some(left) = iterator::count(message) else { return };
        let taken = count.wrapping_sub(left);
        if left > count || taken <= accepted {
            return;
        }
        store!(mark, accepted, taken);
        connection::write_accepted::<LOOP>(endpoint, mark, taken - accepted);
        if left == 0 {
            connection::write_ends(endpoint);
            mark::end(mark);
        }
    }
}
