//! Watched socket paths as the kernel's trie takes them: a whole path, or a prefix of paths.

use spanlet_abi::limits::{MAX_PATHS, PATH_BYTES};

use crate::call::SocketKind;
use crate::config::WatchedSocket;

/// An entry of the trie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedPath {
    pub kind: SocketKind,
    /// Bits of `bytes` that must agree.
    pub prefix_bits: u32,
    pub bytes: [u8; PATH_BYTES],
}

/// Why a path cannot be watched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("socket path {0:?} is longer than the {most} bytes that a unix socket's path can have", most = PATH_BYTES - 1)]
    TooLong(String),
    #[error("socket path {0:?} is not absolute")]
    NotAbsolute(String),
    #[error("socket path {0:?}: `*` is understood only as the last character")]
    Pattern(String),
    #[error("{0} socket paths are configured, at most {MAX_PATHS} can be watched")]
    TooMany(usize),
}

impl WatchedPath {
    /// What listens at a path that this covers. Among the plugins' sockets those of DRA are known by their name: `dra.sock`,
    /// or `dra-<uid>.sock` while one instance takes over from another. The kernel programs tell them apart in the same way.
    pub fn kind_of(&self, path: &[u8]) -> SocketKind {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if self.kind == SocketKind::Csi && name.starts_with(b"dra") { SocketKind::Dra } else { self.kind }
    }

    /// Whether this is the path, or one of the prefix.
    pub fn covers(&self, path: &[u8]) -> bool {
        let agreeing_bytes = self.prefix_bits as usize / 8;
        let mut padded = [0; PATH_BYTES];
        let length = path.len().min(PATH_BYTES);
        padded[..length].copy_from_slice(&path[..length]);
        length != 0 && padded[..agreeing_bytes] == self.bytes[..agreeing_bytes]
    }
}

/// Turns configured sockets into entries of the trie.
pub fn watched(sockets: &[WatchedSocket]) -> Result<Vec<WatchedPath>, PathError> {
    if sockets.len() > MAX_PATHS as usize {
        return Err(PathError::TooMany(sockets.len()));
    }
    sockets.iter().map(watched_path).collect()
}

fn watched_path(socket: &WatchedSocket) -> Result<WatchedPath, PathError> {
    let (path, prefix) = match socket.path.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (socket.path.as_str(), false),
    };
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute(socket.path.clone()));
    }
    if path.contains('*') {
        return Err(PathError::Pattern(socket.path.clone()));
    }
    if path.len() >= PATH_BYTES {
        return Err(PathError::TooLong(socket.path.clone()));
    }
    let mut bytes = [0; PATH_BYTES];
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    // A whole path must agree up to and with its final zero.
    let agreeing_bytes = if prefix { path.len() } else { path.len() + 1 };
    Ok(WatchedPath { kind: socket.kind, prefix_bits: 8 * agreeing_bytes as u32, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: &str) -> WatchedSocket {
        WatchedSocket { kind: SocketKind::Cri, path: path.to_owned() }
    }

    #[test]
    fn a_whole_path_must_agree_with_its_final_zero_and_a_prefix_must_not() {
        let paths = watched(&[socket("/run/a.sock"), socket("/run/b/*")]).unwrap();
        assert_eq!((paths[0].prefix_bits, &paths[0].bytes[..12]), (96, &b"/run/a.sock\0"[..]));
        assert_eq!((paths[1].prefix_bits, &paths[1].bytes[..8]), (56, &b"/run/b/\0"[..]));
    }

    #[test]
    fn a_dra_plugin_is_known_by_its_sockets_name() {
        let plugins = &watched(&[WatchedSocket { kind: SocketKind::Csi, path: "/plugins/*".to_owned() }]).unwrap()[0];
        for (path, expected) in [
            ("/plugins/gpu.vendor.com/dra.sock", SocketKind::Dra),
            ("/plugins/gpu.vendor.com/dra-0b5f4d5e.sock", SocketKind::Dra),
            ("/plugins/dra.vendor.com/csi.sock", SocketKind::Csi),
            ("/plugins/disk.vendor.com/csi.sock", SocketKind::Csi),
        ] {
            assert_eq!(plugins.kind_of(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        let long = format!("/{}", "x".repeat(PATH_BYTES - 1));
        assert_eq!(watched(&[socket("run/a")]), Err(PathError::NotAbsolute("run/a".into())));
        assert_eq!(watched(&[socket("/run/*/a")]), Err(PathError::Pattern("/run/*/a".into())));
        assert_eq!(watched(&[socket(&long)]), Err(PathError::TooLong(long.clone())));
        assert_eq!(watched(&vec![socket("/a"); MAX_PATHS as usize + 1]), Err(PathError::TooMany(257)));
    }
}
