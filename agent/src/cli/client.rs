//! Asks the agent's admin listener.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Longest answer that is read. The recorder's default limit is 16 MiB; JSON takes a few times the bytes of what it shows.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The agent answers from memory; it is stuck if it takes this long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which agent is asked, and how its answer is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Admin address of the agent.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4319")]
    pub admin: SocketAddr,
    /// How to print the answer.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Human,
    /// The debug API's own objects.
    Json,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "no agent answers on {address}: {source}\nis it running on this node? `spanlet run` starts it; `--admin` asks another address"
    )]
    Unavailable { address: SocketAddr, source: io::Error },
    #[error("the agent on {address} broke off GET {path}: {reason}")]
    BrokenOff { address: SocketAddr, path: String, reason: String },
    #[error("the agent answered GET {path} with {status}: {text}")]
    Refused { path: String, status: StatusCode, text: String },
    #[error("the agent's answer to GET {path} is not what this version expects: {source}")]
    Unreadable { path: String, source: serde_json::Error },
    #[error("no start of pod {pod} was seen on this node{close}")]
    UnknownPod { pod: String, close: String },
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The process's exit code: 69 (`EX_UNAVAILABLE`) if the agent is not there, else 1. A reader that has seen enough
    /// (`spanlet pods | head`) is no failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable { .. } | Self::BrokenOff { .. } => 69,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Refused { .. } | Self::Unreadable { .. } | Self::UnknownPod { .. } | Self::Output(_) => 1,
        }
    }
}

/// `GET path` as JSON; `None` for 404.
pub async fn get<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<Option<T>, Failure> {
    let (status, body) = match tokio::time::timeout(TIMEOUT, request(address, path)).await {
        Ok(answer) => answer?,
        Err(_) => {
            let source = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", TIMEOUT.as_secs()));
            return Err(Failure::Unavailable { address, source });
        }
    };
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|source| Failure::Unreadable { path: path.to_owned(), source }),
        StatusCode::NOT_FOUND => Ok(None),
        _ => {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            Err(Failure::Refused { path: path.to_owned(), status, text })
        }
    }
}

/// As [`get`], of a path that every agent has.
pub async fn get_list<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<Vec<T>, Failure> {
    let list = get(address, path).await?;
    list.ok_or_else(|| Failure::Refused {
        path: path.to_owned(),
        status: StatusCode::NOT_FOUND,
        text: "is this address a spanlet agent's admin listener?".to_owned(),
    })
}

async fn request(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let unavailable = |source| Failure::Unavailable { address, source };
    let broken_off = |reason: String| Failure::BrokenOff { address, path: path.to_owned(), reason };
    let stream = TcpStream::connect(address).await.map_err(unavailable)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken_off(error.to_string()))?;
    // Errors of the connection come back through the request.
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken_off(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken_off(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await.map_err(|error| broken_off(error.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}
