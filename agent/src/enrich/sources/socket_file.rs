//! Whether the socket at a path is still the one it was: a server that starts again binds a new file.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// A socket's file. The time tells two apart that were given the same inode number one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketFile {
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl SocketFile {
    /// `None` if there is no socket at the path.
    pub(super) async fn at(path: &Path) -> Option<Self> {
        let metadata = tokio::fs::metadata(path).await.ok().filter(|metadata| metadata.file_type().is_socket())?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { device: metadata.dev(), inode: metadata.ino(), changed })
    }
}
