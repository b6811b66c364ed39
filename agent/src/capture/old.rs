//! Connections older than the agent: both ends' inodes are found by sock_diag and given to the programs, which know the sockets by
//! them when they are used next.

use std::collections::HashSet;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::paths::WatchedPath;
use crate::call::SocketKind;

/// An established connection on a watched socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldConnection {
    pub kind: SocketKind,
    pub client_inode: u64,
    pub server_inode: u64,
}

/// A unix socket as sock_diag tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct UnixSocket {
    inode: u64,
    peer: Option<u64>,
    path: Vec<u8>,
}

/// Constants of linux/sock_diag.h and linux/unix_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
/// States of linux/tcp_states.h, which unix sockets share.
const TCP_ESTABLISHED: u32 = 1;
const TCP_LISTEN: u32 = 10;
const HEADER_BYTES: usize = 16;
/// `struct unix_diag_msg`
const MESSAGE_BYTES: usize = 16;
/// What one read of the answer may hold; the kernel sends at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// The established connections on these paths, in this network namespace.
///
/// # Errors
/// When the kernel does not answer (option CONFIG_UNIX_DIAG).
pub fn connections(paths: &[WatchedPath]) -> io::Result<Vec<OldConnection>> {
    Ok(on_watched_paths(&dump(TCP_ESTABLISHED)?, paths))
}

/// Inodes of the sockets that listen on a watched path of the CRI, in this network namespace.
///
/// # Errors
/// As for [`connections`].
pub fn cri_listeners(paths: &[WatchedPath]) -> io::Result<Vec<u64>> {
    let is_cri =
        |socket: &UnixSocket| paths.iter().any(|path| path.kind == SocketKind::Cri && path.covers(&socket.path));
    Ok(dump(TCP_LISTEN)?.into_iter().filter(is_cri).map(|socket| socket.inode).collect())
}

/// The inodes of all established unix sockets of this network namespace and of their peers, wherever those are.
///
/// # Errors
/// When the kernel does not answer.
pub fn inodes() -> io::Result<HashSet<u64>> {
    Ok(dump(TCP_ESTABLISHED)?.into_iter().flat_map(|socket| [Some(socket.inode), socket.peer]).flatten().collect())
}

/// An accepted socket shows its listener's path; its peer is the client.
fn on_watched_paths(sockets: &[UnixSocket], paths: &[WatchedPath]) -> Vec<OldConnection> {
    let watched = |socket: &UnixSocket| {
        let path = paths.iter().find(|path| path.covers(&socket.path))?;
        Some(path.kind_of(&socket.path))
    };
    let of = |socket: &UnixSocket| {
        Some(OldConnection { kind: watched(socket)?, client_inode: socket.peer?, server_inode: socket.inode })
    };
    sockets.iter().filter_map(of).collect()
}

/// Asks for all unix sockets in this state with their names and peers.
fn dump(state: u32) -> io::Result<Vec<UnixSocket>> {
    // SAFETY: no pointers.
    let descriptor =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let request = request(state);
    // SAFETY: the buffer is valid for its length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut sockets = Vec::new();
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        // SAFETY: the buffer is valid for its length.
        let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        if parse(&buffer[..received], &mut sockets)? {
            return Ok(sockets);
        }
    }
}

/// `struct nlmsghdr` and `struct unix_diag_req`.
fn request(state: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend(40u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend((1u32 << state).to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend((UDIAG_SHOW_NAME | UDIAG_SHOW_PEER).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// Takes in a part of the answer; true at its end.
fn parse(mut bytes: &[u8], sockets: &mut Vec<UnixSocket>) -> io::Result<bool> {
    while bytes.len() >= HEADER_BYTES {
        let length = u32_at(bytes, 0) as usize;
        if length < HEADER_BYTES || length > bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut"));
        }
        match i32::from(u16_at(bytes, 4)) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = if length >= HEADER_BYTES + 4 { u32_at(bytes, HEADER_BYTES) as i32 } else { 0 };
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => sockets.extend(socket(&bytes[HEADER_BYTES..length])),
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct unix_diag_msg { family, type, state, pad: u8; ino: u32; cookie: [u32; 2] }`, then attributes.
fn socket(message: &[u8]) -> Option<UnixSocket> {
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    let mut socket = UnixSocket { inode: u64::from(u32_at(message, 4)), ..UnixSocket::default() };
    while attributes.len() >= size_of::<u32>() {
        let length = usize::from(u16_at(attributes, 0));
        let value = attributes.get(4..length)?;
        match u16_at(attributes, 2) {
            UNIX_DIAG_NAME => socket.path = value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            UNIX_DIAG_PEER if value.len() >= 4 => socket.peer = Some(u64::from(u32_at(value, 0))),
            _ => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Some(socket)
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Which processes hold one of these sockets.
pub fn holders(inodes: impl IntoIterator<Item = u64>) -> Vec<u32> {
    let wanted: HashSet<String> = inodes.into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|process| holds(*process, &wanted)).collect()
}

fn holds(process: u32, wanted: &HashSet<String>) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_str().is_some_and(|name| wanted.contains(name)))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::paths;
    use super::*;
    use crate::config::WatchedSocket;

    #[test]
    fn a_connection_is_found_by_its_path_with_both_ends_and_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let pattern = format!("{}/*", folder.path().display());
        let watched = paths::watched(&[WatchedSocket { kind: SocketKind::Cri, path: pattern }]).unwrap();
        let found = connections(&watched).unwrap();
        let inode = |descriptor: i32| {
            let name = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap();
            name.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse::<u64>().unwrap()
        };
        let expected = OldConnection {
            kind: SocketKind::Cri,
            client_inode: inode(client.as_raw_fd()),
            server_inode: inode(server.as_raw_fd()),
        };
        assert_eq!(found, [expected]);
        assert_eq!(holders([expected.client_inode]), [std::process::id()]);
        assert_eq!(cri_listeners(&watched).unwrap(), [inode(listener.as_raw_fd())]);
    }

    #[test]
    fn an_answer_that_is_cut_is_an_error() {
        let mut bytes = vec![0; 16];
        bytes[0] = 200;
        assert!(parse(&bytes, &mut Vec::new()).is_err());
        assert_eq!(socket(&[0; 8]), None);
    }
}
