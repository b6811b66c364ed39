//! An OTLP/gRPC backend that records what it gets, and can refuse, dawdle, die and come back on the same port.

mod process;
mod received;
mod service;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use process::{Options, serve};
pub use received::{Received, ReceivedRequest, SpanId};
use service::TraceService;

/// How every request is answered from now on.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Time that passes before an answer.
    pub delay: Duration,
    pub answer: Answer,
}

#[derive(Debug, Clone, Default)]
pub enum Answer {
    #[default]
    Accept,
    Refuse {
        code: tonic::Code,
        /// Sent as `google.rpc.RetryInfo`.
        retry_after: Option<Duration>,
    },
}

/// What is kept of accepted requests besides their spans' ids.
#[derive(Debug, Default)]
pub enum Keep {
    /// Whole requests, in memory.
    #[default]
    Requests,
    /// Nothing: recordings can be long.
    Ids,
    /// The requests' bytes, varint-delimited, in a file.
    File(File),
}

/// The backend. Dropping it closes its connections at once.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    received: Arc<Received>,
    behaviour: Arc<Mutex<Behaviour>>,
    server: Option<RunningServer>,
}

#[derive(Debug)]
struct RunningServer {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Upstream {
    /// Starts on a free port of the loopback interface.
    pub fn start(keep: Keep) -> Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), keep)
    }

    /// Starts on the given address.
    pub fn start_on(address: SocketAddr, keep: Keep) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("bind the upstream to {address}"))?;
        let mut upstream = Self {
            address: listener.local_addr()?,
            received: Arc::new(Received::new(keep)),
            behaviour: Arc::default(),
            server: None,
        };
        upstream.serve(listener)?;
        Ok(upstream)
    }

    /// As an exporter wants it: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> &Received {
        &self.received
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("no thread panics while it holds the lock") = behaviour;
    }

    /// Closes the listener and every connection, answered or not.
    pub fn die(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop.send(()); // an error means that it has ended already
            server.thread.join().expect("the upstream's thread does not panic");
        }
    }

    /// Listens again on the same port; what was received before is still known.
    pub fn revive(&mut self) -> Result<()> {
        self.die();
        let listener =
            TcpListener::bind(self.address).with_context(|| format!("bind the upstream to {} again", self.address))?;
        self.serve(listener)
    }

    /// A thread and a runtime of its own: when the runtime is dropped, so are all connections.
    fn serve(&mut self, listener: TcpListener) -> Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let service = TraceService::new(self.received.clone(), self.behaviour.clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the listener does not block");
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                tokio::select! {
                    served = Server::builder().add_service(service).serve_with_incoming(incoming) => {
                        served.expect("a listener that is bound accepts");
                    }
                    _ = stopped => {}
                }
            });
        })?;
        self.server = Some(RunningServer { stop, thread });
        Ok(())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.die();
    }
}
