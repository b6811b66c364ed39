//! Listening sockets: bound with errors that tell how to mend them, accepting without ever spinning.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Pause after a failed accept: out of file descriptors, say, which no immediate retry mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "cannot listen on {address} for {what}: the port is taken; `ss -ltnp 'sport = :{port}'` shows by whom",
        port = address.port()
    )]
    PortTaken { what: &'static str, address: SocketAddr },
    #[error("cannot listen on unix:{path} for {what}: another process serves it; `ss -lxp` shows which", path = path.display())]
    PathTaken { what: &'static str, path: PathBuf },
    #[error("cannot listen on {address} for {what}")]
    Listen { what: &'static str, address: String, source: io::Error },
}

/// A bound TCP listener.
#[derive(Debug)]
pub(crate) struct Tcp {
    listener: TcpListener,
    address: SocketAddr,
}

/// A bound unix listener; its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Unix {
    listener: UnixListener,
    _file: SocketFile,
}

// === impl Tcp ===

impl Tcp {
    pub(crate) async fn bind(what: &'static str, address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken { what, address },
            _ => ListenError::Listen { what, address: address.to_string(), source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn incoming(self) -> impl Stream<Item = io::Result<TcpStream>> {
        stream::unfold(self, |listener| async { Some((Ok(listener.accept_one().await.0), listener)) })
    }

    async fn accept_one(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Requests are written in one go and waited for: Nagle's algorithm could only delay the answer.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    return (stream, peer);
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    }
}

impl axum::serve::Listener for Tcp {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        self.accept_one().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

// === impl Unix ===

impl Unix {
    /// Binds `path`; a socket file that nobody serves any more is replaced.
    pub(crate) fn bind(what: &'static str, path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Listen { what, address: format!("unix:{}", path.display()), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match StdUnixStream::connect(path) {
            Ok(_) => return Err(ListenError::PathTaken { what, path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {} // there is nothing, or nothing that is a socket: bind tells
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        Ok(Self { listener, _file: SocketFile(path.to_owned()) })
    }

    pub(crate) fn incoming(self) -> impl Stream<Item = io::Result<UnixStream>> {
        stream::unfold(self, |listener| async {
            loop {
                match listener.listener.accept().await {
                    Ok((stream, _)) => return Some((Ok(stream), listener)),
                    Err(error) => accept_failed(&error).await,
                }
            }
        })
    }
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "socket file not removed");
        }
    }
}

async fn accept_failed(error: &io::Error) {
    // These concern the one connection that went away, not the listener.
    let passing = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !passing.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
