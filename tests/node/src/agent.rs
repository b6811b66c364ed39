//! The agent as a process under test: its configuration, its admin API, its end.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spanlet::api::{CallEntry, CaptureState, Status};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::programs;

/// The probes are attached in less than a second; a guest that is translated on a busy machine needs a hundred times as long.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(180);
/// The agent drains for at most 20 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What commands take that check one attach mode.
#[derive(Debug, clap::Args)]
pub struct ModeOption {
    /// `capture.mode` of the agent
    #[arg(long, default_value = "auto")]
    pub capture_mode: String,
}

/// Where an agent listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    ports: Ports,
    log_path: PathBuf,
}

impl Ports {
    /// Three ports that are free now; the agent says so if one is taken in between.
    pub fn free() -> Result<Self> {
        let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [grpc, http, admin] = listeners.map(|listener| listener.and_then(|listener| listener.local_addr()));
        Ok(Self { grpc: grpc?, http: http?, admin: admin? })
    }

    /// For exporters: `http://127.0.0.1:PORT`.
    pub fn otlp_endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }
}

/// A configuration that listens on `ports`, watches one CRI socket and exports to `upstream`; tests add to it. What programs cost
/// says nothing on a busy machine or under QEMU, and must not have them detached in the middle of a test.
pub fn config(ports: &Ports, cri_socket: &Path, upstream: &str) -> Value {
    json!({
        "receive": {"grpc_listen": ports.grpc, "http_listen": ports.http},
        "capture": {"sockets": [{"kind": "cri", "path": cri_socket}], "max_cpu_ratio": null},
        "export": {"endpoint": upstream},
        "admin": {"listen": ports.admin},
    })
}

/// The same for the test's own connections only: nothing leaves, and no runtime is asked for its pods.
pub fn config_of_own_connections(ports: &Ports, cri_socket: &Path) -> Value {
    let mut config = config(ports, cri_socket, "");
    config["export"] = json!({});
    config["enrich"] = json!({"runtime": "off"});
    config
}

impl Agent {
    /// Runs `spanlet run` with a configuration written to `dir`, and its log beside it.
    ///
    /// # Errors
    /// When the program is not built or does not start.
    pub fn start(dir: &Path, ports: Ports, config: &Value) -> Result<Self> {
        let config_path = dir.join("spanlet.yaml");
        fs::write(&config_path, config.to_string()).context("write the agent's configuration")?; // JSON is YAML
        let log_path = dir.join("spanlet.log");
        let log = File::create(&log_path)?;
        let child = Command::new(programs::find("spanlet")?)
            .args(["run", "--config"])
            .arg(&config_path)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0) // a Ctrl-C at the terminal is the owner's to handle
            .kill_on_drop(true)
            .spawn()
            .context("start spanlet")?;
        Ok(Self { child, ports, log_path })
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Waits until the probes are attached; returns the attach mode.
    ///
    /// # Errors
    /// With the agent's reasons when it runs without probes, with its log when it ends.
    pub async fn wait_until_attached(&mut self) -> Result<String> {
        let deadline = tokio::time::Instant::now() + ATTACH_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("spanlet ended with {status}:\n{}", self.log());
            }
            match self.status().await.map(|status| status.capture) {
                Ok(capture) if capture.state == CaptureState::Attached => {
                    return capture.mode.context("attached, but in no mode");
                }
                Ok(capture) if capture.state == CaptureState::Off => {
                    bail!("spanlet runs without probes: {}", capture.reasons.join("; "));
                }
                _ => {}
            }
            ensure!(tokio::time::Instant::now() < deadline, "no probes after {ATTACH_TIMEOUT:?}:\n{}", self.log());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub async fn status(&self) -> Result<Status> {
        self.get("/api/v1/status").await
    }

    /// An answer of the admin API.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = get(self.ports.admin, path).await?;
        serde_json::from_slice(&body).with_context(|| format!("understand the answer to GET {path}"))
    }

    /// What it tells of the call with this `traceparent`, if anything.
    pub async fn call(&self, traceparent: &str) -> Result<Option<CallEntry>> {
        let calls: Vec<CallEntry> = self.get("/api/v1/calls").await?;
        Ok(calls.into_iter().find(|call| call.traceparent.as_deref() == Some(traceparent)))
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> Result<String> {
        Ok(String::from_utf8(get(self.ports.admin, "/metrics").await?.into())?)
    }

    /// Sends SIGTERM, so that it drains, and waits for its end.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await;
        Ok(ended.with_context(|| format!("spanlet still runs {STOP_TIMEOUT:?} after SIGTERM:\n{}", self.log()))??)
    }

    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).context("it has ended")?;
        rustix::process::kill_process(pid, signal).context("signal spanlet")
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<Bytes> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request =
        http::Request::get(path).header(http::header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let response = requests.send_request(request).await.with_context(|| format!("GET {path}"))?;
    let status = response.status();
    let body = response.into_body().collect().await.with_context(|| format!("GET {path}"))?.to_bytes();
    connection.abort();
    ensure!(status.is_success(), "GET {path}: {status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}
