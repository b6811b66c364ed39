//! fentry mode: for kernels that cannot preempt inside a program, where it is exact and cheapest.

use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use spanlet_abi::counters::Program;

use crate::connection;
use crate::cost;
use crate::endpoints::{self, watched};
use crate::iterator;
use crate::kernel::{field, low_half, typed};
use crate::maps::{Endpoint, layout, load, store};
use crate::mark;
use crate::socket;
use crate::walk;

const MSG_PEEK: u32 = 2;

/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[fentry(function = "unix_stream_sendmsg")]
pub fn fentry_send(context: FEntryContext) -> i32 {
    // SAFETY: the verifier knows the types of the function's arguments.
    unsafe {
        let sk = typed(context.arg::<u64>(0), layout!(socket_sk));
        if endpoints::may_be_watched(low_half(sk)) {
            cost::of(Program::Send, |slot| {
                send_begins::<true>(cost::number_of(slot, sk), context.arg::<u64>(1));
            });
        }
    }
    0
}

/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[fexit(function = "unix_stream_sendmsg")]
pub fn fexit_send(context: FExitContext) -> i32 {
    send_ends::<true>(&context);
    0
}

/// The same for kernels without `bpf_loop`.
///
/// match-proto: `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`
#[fexit(function = "unix_stream_sendmsg")]
pub fn fexit_send_bounded(context: FExitContext) -> i32 {
    send_ends::<false>(&context);
    0
}

#[inline(always)]
fn send_ends<const LOOP: bool>(context: &FExitContext) {
    // SAFETY: the verifier knows the type of the function's argument; what is walked is in the map.
    unsafe {
        let sk: u64 = typed(context.arg::<u64>(0), layout!(socket_sk));
        write_ends(Program::Accepted, sk, context.arg::<u64>(1), context.arg::<i32>(3), |endpoint, bytes| {
            walk::accepted::<LOOP>(endpoint, bytes);
        });
    }
}

/// Up to 6.4, splice and sendfile send page by page; then they come by `unix_stream_sendmsg`, too.
///
/// match-proto: `ssize_t unix_stream_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`
#[fentry(function = "unix_stream_sendpage")]
pub fn fentry_send_page(context: FEntryContext) -> i32 {
    // SAFETY: the verifier knows the types of the function's arguments.
    unsafe {
        let sk = typed(context.arg::<u64>(0), layout!(socket_sk));
        if endpoints::may_be_watched(low_half(sk)) {
            cost::of(Program::SendPage, |slot| {
                page_begins(cost::number_of(slot, sk), context.arg::<u64>(1), context.arg::<u64>(3));
            });
        }
    }
    0
}

/// match-proto: `ssize_t unix_stream_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`
#[fexit(function = "unix_stream_sendpage")]
pub fn fexit_send_page(context: FExitContext) -> i32 {
    // SAFETY: the verifier knows the type of the function's argument.
    let sk: u64 = unsafe { typed(context.arg::<u64>(0), layout!(socket_sk)) };
    write_ends(Program::PageAccepted, sk, context.arg::<u64>(1), context.arg::<i32>(5), walk::unfollowed);
    0
}

/// The write of this message, or page, of the current thread is over.
#[inline(always)]
fn write_ends(program: Program, sk: u64, message: u64, result: i32, accepted: impl FnOnce(*mut Endpoint, u64)) {
    if !endpoints::may_be_known(low_half(sk)) {
        return;
    }
    cost::of(program, |slot| {
        // SAFETY: the slot is this run's; what is found points into the map.
        unsafe {
            let Some(endpoint) = watched(cost::number_of(slot, sk)) else { return };
            let Some(mark) = mark::of_write(endpoint, connection::thread()) else { return };
            if load!(mark, message) != message {
                return;
            }
            if result > 0 {
                accepted(endpoint, result as u64);
            }
            mark::end(mark);
        }
    });
}

/// match-proto: `int unix_stream_read_actor(struct sk_buff *skb, int skip, int chunk, struct unix_stream_read_state *state)`
#[fentry(function = "unix_stream_read_actor")]
pub fn fentry_read(context: FEntryContext) -> i32 {
    let state = context.arg::<u64>(3);
    // SAFETY: the verifier knows the type of the function's argument and of what it points to.
    unsafe {
        let socket: u64 = typed(state, layout!(read_state_socket));
        if socket == 0 {
            return 0;
        }
        let sk: u64 = typed(socket, layout!(socket_sk));
        if sk == 0 || !endpoints::may_be_watched(low_half(sk)) {
            return 0;
        }
        cost::of(Program::Read, |slot| {
            let (flags, queued) =
                (typed(state, layout!(read_state_flags)), typed(sk, layout!(sock_receive_queue_length)));
            let sk = cost::number_of(slot, sk);
            read_actor(sk, context.arg::<u64>(0), context.arg::<i32>(1), context.arg::<i32>(2), flags, Some(queued));
        });
    }
    0
}

/// match-proto: `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fentry(function = "unix_stream_connect")]
pub fn fentry_connect(context: FEntryContext) -> i32 {
    cost::of(Program::Connect, |_| {
        connect_begins::<false>(context.arg::<u64>(0), context.arg::<u64>(1), context.arg::<u32>(2));
    });
    0
}

/// match-proto: `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fexit(function = "unix_stream_connect")]
pub fn fexit_connect(context: FExitContext) -> i32 {
    cost::of(Program::Connected, |_| connect_ends(&context));
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
    cost::of(Program::Release, |slot| {
        // SAFETY: the slot is this run's.
        connection::closed(unsafe { cost::number_of(slot, context.arg::<u64>(0)) });
    });
    0
}

/// What kprobe mode shares: a thread begins to send.
///
/// # Safety
/// With `TYPED`, `message` is a pointer that the verifier follows.
#[inline(always)]
pub unsafe fn send_begins<const TYPED: bool>(sk: u64, message: u64) {
    let Some(endpoint) = watched(sk).or_else(|| connection::find_old(sk)) else { return };
    // SAFETY: points into the map; the caller's promise.
    unsafe {
        let thread = connection::thread();
        let mark = mark::begin_write(endpoint, sk, thread);
        connection::used_by_process(endpoint, (thread >> 32) as u32);
        if !iterator::cursor::<TYPED>(message, endpoint) {
            mark::unfollow(mark);
        }
    }
}

/// What kprobe mode shares: a thread begins to send so many bytes of a page.
#[inline(always)]
pub fn page_begins(sk: u64, page: u64, bytes: u64) {
    let Some(endpoint) = watched(sk).or_else(|| connection::find_old(sk)) else { return };
    let thread = connection::thread();
    connection::used_by_process(endpoint, (thread >> 32) as u32);
    // SAFETY: points into the map.
    unsafe {
        let mark = mark::begin_write(endpoint, sk, thread);
        store!(mark, message, page);
        store!(mark, count, bytes);
        mark::unfollow(mark);
    }
}

/// What kprobe mode shares: `chunk` bytes of a buffer go to a reader of `sk`, in whose queue are so many.
#[inline(always)]
pub fn read_actor(sk: u64, skb: u64, skip: i32, chunk: i32, flags: u32, queued: Option<u32>) {
    let Some(endpoint) = watched(sk).or_else(|| connection::find_old(sk)) else { return };
    if flags & MSG_PEEK == 0 && chunk > 0 {
        let queued = queued.unwrap_or_else(|| socket::queued(sk));
        connection::read_bytes(endpoint, chunk as u64, queued, skb, (skip as u32).wrapping_add(chunk as u32));
    }
}

/// What kprobe mode shares: a thread begins to connect. Where its return is not seen, a mark tells what it was about to do.
#[inline(always)]
pub fn connect_begins<const MARKED: bool>(socket: u64, address: u64, length: u32) {
    let Some(sk) = field::<u64>(socket, layout!(socket_sk)) else { return };
    let mut path = socket::empty_key();
    let given = socket::given_path(address, length as u64, true, &mut path);
    connection::connect_begins(sk, if given { Some(&path) } else { None });
    if MARKED {
        mark::begin_connect(sk, address, length as u64);
    }
}
