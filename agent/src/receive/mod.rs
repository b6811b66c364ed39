//! Accepts OTLP trace requests over gRPC (TCP or a unix socket) and HTTP, and acknowledges exactly what it has put
//! into the bounded queue to the pipeline. What does not fit is refused, so that its sender keeps it.
//!
//! ```text
//!  grpc ─┐
//!        ├─► message (reserve, read, gunzip, bound) ─► intake (parse, queue, count) ─► [queue]
//!  http ─┘
//! ```

mod grpc;
mod http;
mod intake;
mod message;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use intake::{Intake, Received};

use crate::config;
use crate::listen::{ListenError, Tcp, Unix};

/// How long a request may take to arrive. kubelet's SDK gives up after 10 s, so nobody waits for the answer any more.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// When a refused sender should come again: soon, because kubelet's SDK has 10 s in all for a batch.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Bound listeners, not yet served.
#[derive(Debug)]
pub struct Receiver {
    grpc: Option<Tcp>,
    http: Option<Tcp>,
    unix: Option<Unix>,
}

impl Receiver {
    /// Binds every configured listener.
    ///
    /// # Errors
    /// [`ListenError`] names the listener, its address and how to find who holds it.
    pub async fn bind(config: &config::Receive) -> Result<Self, ListenError> {
        let grpc = match config.grpc_listen {
            Some(address) => Some(Tcp::bind("OTLP/gRPC", address).await?),
            None => None,
        };
        let http = match config.http_listen {
            Some(address) => Some(Tcp::bind("OTLP/HTTP", address).await?),
            None => None,
        };
        let unix = match &config.unix_listen {
            Some(path) => Some(Unix::bind("OTLP/gRPC", path)?),
            None => None,
        };
        Ok(Self { grpc, http, unix })
    }

    /// The bound address of OTLP/gRPC.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(Tcp::address)
    }

    /// The bound address of OTLP/HTTP.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Tcp::address)
    }

    /// Serves until `stop` becomes true, then finishes the requests that are under way.
    pub async fn serve(self, intake: Intake, stop: watch::Receiver<bool>) {
        let mut servers = JoinSet::new();
        if let Some(listener) = self.grpc {
            servers.spawn(grpc::serve(listener.incoming(), intake.clone(), stopped(stop.clone())));
        }
        if let Some(listener) = self.unix {
            servers.spawn(grpc::serve(listener.incoming(), intake.clone(), stopped(stop.clone())));
        }
        if let Some(listener) = self.http {
            servers.spawn(http::serve(listener, intake, stopped(stop)));
        }
        while servers.join_next().await.is_some() {}
    }
}

/// Completes when `stop` is true, or when its sender is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
