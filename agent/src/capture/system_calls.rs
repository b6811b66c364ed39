//! Which system call does what, as tracepoint mode wants to know, by this architecture's numbers.

use spanlet_abi::layout::{Action, SYSTEM_CALLS};

/// Every system call that writes to a socket, opens or closes one, and those that read from one, but for splice and recvmmsg: what
/// these took counts as read when a usual read next finds the queue empty.
const ACTIONS: &[(libc::c_long, Action)] = &[
    (libc::SYS_read, Action::Read),
    (libc::SYS_readv, Action::Read),
    (libc::SYS_preadv2, Action::Read),
    (libc::SYS_recvfrom, Action::ReceiveFrom),
    (libc::SYS_recvmsg, Action::ReceiveMessage),
    (libc::SYS_write, Action::Write),
    (libc::SYS_writev, Action::WriteVector),
    (libc::SYS_pwritev2, Action::WriteVector),
    (libc::SYS_sendto, Action::Write),
    (libc::SYS_sendmsg, Action::SendMessage),
    (libc::SYS_sendmmsg, Action::SendMessages),
    (libc::SYS_sendfile, Action::Unfollowed),
    (libc::SYS_splice, Action::Splice),
    (libc::SYS_connect, Action::Connect),
    (libc::SYS_accept, Action::Accept),
    (libc::SYS_accept4, Action::Accept),
    (libc::SYS_close, Action::Close),
];

/// The table that the programs index by system call number.
pub fn actions() -> [u8; SYSTEM_CALLS] {
    let mut table = [Action::None as u8; SYSTEM_CALLS];
    for (number, action) in ACTIONS {
        table[*number as usize] = *action as u8;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_place_in_the_table() {
        let table = actions();
        assert_eq!(table.iter().filter(|action| **action != 0).count(), ACTIONS.len());
        assert_eq!(table[libc::SYS_writev as usize], Action::WriteVector as u8);
        assert_eq!(table[libc::SYS_getpid as usize], Action::None as u8);
    }
}
