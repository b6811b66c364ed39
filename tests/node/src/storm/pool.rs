//! The client's connections: each is made when it is needed, and again when it has broken or the server said GOAWAY.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::server::{WINDOW_BYTES, unwatched_path};
use super::socket::Socket;

/// A server that was killed is back before this.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Pool {
    socket: PathBuf,
    slots: Vec<Mutex<Option<Connection>>>,
    seed: AtomicU64,
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(socket: PathBuf, connections: usize, seed: u64) -> Self {
        let slots = (0..connections).map(|_| Mutex::new(None)).collect();
        Self { socket, slots, seed: AtomicU64::new(seed << 32) }
    }

    /// The connection of this slot, able to take a call.
    ///
    /// # Errors
    /// When nobody listens for long.
    pub(super) async fn connection(&self, slot: usize) -> Result<SendRequest<Bytes>> {
        let mut slot = self.slots[slot % self.slots.len()].lock().await;
        if let Some(connection) = &*slot
            && let Ok(requests) = connection.requests.clone().ready().await
        {
            return Ok(requests);
        }
        let connection = self.connect().await?;
        let requests = connection.requests.clone();
        *slot = Some(connection);
        Ok(requests)
    }

    /// Closes the connection of this slot when its calls are over; the next call makes another.
    pub(super) async fn renew(&self, slot: usize) {
        drop(self.slots[slot % self.slots.len()].lock().await.take());
    }

    /// The path beside the watched one that the server listens on, too.
    pub(super) fn unwatched(&self) -> PathBuf {
        unwatched_path(&self.socket)
    }

    /// Closes all connections in good order.
    pub(super) async fn close(&self) {
        for slot in &self.slots {
            let Some(Connection { requests, driver }) = slot.lock().await.take() else { continue };
            drop(requests);
            let _ = driver.await; // it ends when no call is open any more
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let deadline = Instant::now() + CONNECT_WITHIN;
        loop {
            let error = match self.connect_once().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("connect to {}", self.socket.display()));
            }
            sleep(CONNECT_INTERVAL).await;
        }
    }

    async fn connect_once(&self) -> Result<Connection> {
        let stream = UnixStream::connect(&self.socket).await?;
        let socket = Socket::new(stream, self.seed.fetch_add(1, Ordering::Relaxed))?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await
            .map_err(io::Error::other)?;
        // How a connection ends is told by its calls.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { requests, driver })
    }
}
