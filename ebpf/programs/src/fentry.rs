//! fentry mode: for kernels that cannot preempt inside a program, where it is exact and cheapest.

use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use spanlet_abi::counters::Program;
use spanlet_abi::layout::Action;

use crate::connection::{self, watched};
use crate::cost;
use crate::iterator;
use crate::kernel::{field, typed};
use crate::maps::{layout, load};
use crate::mark;
use crate::socket;

const MSG_PEEK: u32 = 2;

/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[fentry(function = "unix_stream_sendmsg")]
pub fn fentry_send(context: FEntryContext) -> i32 {
    cost::of(Program::Send, || {
        // SAFETY: the verifier knows the type of the function's argument.
        let sk = unsafe { typed(context.arg::<u64>(0), layout!(socket_sk)) };
        send_begins(sk, context.arg::<u64>(1));
    });
    0
}

/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[fexit(function = "unix_stream_sendmsg")]
pub fn fexit_send(context: FExitContext) -> i32 {
    cost::of(Program::Accepted, || send_ends::<true>(&context));
    0
}

/// The same for kernels without `bpf_loop`.
///
/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[fexit(function = "unix_stream_sendmsg")]
pub fn fexit_send_bounded(context: FExitContext) -> i32 {
    cost::of(Program::Accepted, || send_ends::<false>(&context));
    0
}

#[inline(always)]
fn send_ends<const LOOP: bool>(context: &FExitContext) {
    let (message, result) = (context.arg::<u64>(1), context.arg::<i32>(3));
    let Some(mark) = mark::active() else { return };
    // SAFETY: points into the map.
    let (sk, marked) = unsafe { (load!(mark, sk), load!(mark, message)) };
    if marked != message {
        return;
    }
    if let Some(endpoint) = watched(sk) {
        if result > 0 {
            // SAFETY: both point into their maps.
            unsafe { connection::write_accepted::<LOOP>(endpoint, mark, result as u64) };
        }
        connection::write_ends(endpoint);
    }
    // SAFETY: points into the map.
    unsafe { mark::end(mark) };
}

/// match-proto: `int unix_stream_read_actor(struct sk_buff *skb, int skip, int chunk, struct unix_stream_read_state *state)`
#[fentry(function = "unix_stream_read_actor")]
pub fn fentry_read(context: FEntryContext) -> i32 {
    cost::of(Program::Read, || {
        let state = context.arg::<u64>(3);
        // SAFETY: the verifier knows the type of the function's argument and of what it points to.
        let (sk, flags) = unsafe {
            let socket: u64 = typed(state, layout!(read_state_socket));
            if socket == 0 {
                return;
            }
            (typed(socket, layout!(socket_sk)), typed(state, layout!(read_state_flags)))
        };
        read_actor(sk, context.arg::<u64>(0), context.arg::<i32>(1), context.arg::<i32>(2), flags);
    });
    0
}

/// match-proto: `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fentry(function = "unix_stream_connect")]
pub fn fentry_connect(context: FEntryContext) -> i32 {
    cost::of(Program::Connect, || {
        connect_begins(context.arg::<u64>(0), context.arg::<u64>(1), context.arg::<u32>(2));
    });
    0
}

/// match-proto: `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fexit(function = "unix_stream_connect")]
pub fn fexit_connect(context: FExitContext) -> i32 {
    cost::of(Program::Connected, || connect_ends(&context));
    0
}

#[inline(always)]
fn connect_ends(context: &FExitContext) {
    let Some(sk) = field::<u64>(context.arg::<u64>(0), layout!(socket_sk)) else { return };
    if context.arg::<i32>(4) != 0 {
        connection::connect_fails(sk);
        return;
    }
    let mut path = socket::empty_key();
    let given = socket::given_path(context.arg::<u64>(1), context.arg::<u32>(2) as u64, true, &mut path);
    connection::connect_succeeds(sk, &mut path, given);
}

/// match-proto: `void unix_release_sock(struct sock *sk, int embrion)`
#[fentry(function = "unix_release_sock")]
pub fn fentry_release(context: FEntryContext) -> i32 {
    cost::of(Program::Release, || connection::closed(context.arg::<u64>(0)));
    0
}

/// What kprobe mode shares: a thread begins to send.
#[inline(always)]
pub fn send_begins(sk: u64, message: u64) {
    let Some(endpoint) = watched(sk).or_else(|| connection::find_old(sk)) else { return };
    let Some(mark) = mark::begin(sk, Action::Write as u8, 0) else { return };
    // SAFETY: points into the map.
    unsafe {
        if iterator::cursor(message, mark) {
            connection::write_begins(endpoint);
        } else {
            mark::end(mark);
        }
    }
}

/// What kprobe mode shares: `chunk` bytes of a buffer go to a reader of `sk`.
#[inline(always)]
pub fn read_actor(sk: u64, skb: u64, skip: i32, chunk: i32, flags: u32) {
    let Some(endpoint) = watched(sk).or_else(|| connection::find_old(sk)) else { return };
    if flags & MSG_PEEK == 0 && chunk > 0 {
        connection::read_bytes(endpoint, chunk as u64, sk, skb, (skip as u32).wrapping_add(chunk as u32));
    }
}

/// What kprobe mode shares: a thread begins to connect.
#[inline(always)]
pub fn connect_begins(socket: u64, address: u64, length: u32) {
    let Some(sk) = field::<u64>(socket, layout!(socket_sk)) else { return };
    let mut path = socket::empty_key();
    let given = socket::given_path(address, length as u64, true, &mut path);
    connection::connect_begins(sk, if given { Some(&path) } else { None });
    mark::begin_connect(sk, 0, address, length as u64);
}
