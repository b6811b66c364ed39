//! The stand-in for a runtime: answers every call as the call itself asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fastrand::Rng;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::UnixListener;

use super::plan::{self, Answer};
use super::process::{Commands, Message, tell};
use super::socket::Socket;
use super::unwatched;

/// The header that tells the server its part.
pub(super) const ANSWER: &str = "storm-answer";
/// Window of a stream and of a connection: a large message does not wait for it, several do.
pub(super) const WINDOW_BYTES: u32 = 256 << 10;

/// The server's part of the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArguments {
    pub socket: PathBuf,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Say GOAWAY on a connection after so many calls; 0 never
    #[arg(long, default_value_t = 0)]
    pub goaway_every: u64,
}

/// Serves until standard input ends.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(arguments: ServerArguments) -> Result<()> {
    let _ = std::fs::remove_file(&arguments.socket); // left over by one that was killed
    let listener =
        UnixListener::bind(&arguments.socket).with_context(|| format!("listen on {}", arguments.socket.display()))?;
    let beside = unwatched_path(&arguments.socket);
    let _ = std::fs::remove_file(&beside);
    let beside = UnixListener::bind(&beside).with_context(|| format!("listen on {}", beside.display()))?;
    tokio::spawn(unwatched::serve(beside));
    tokio::spawn(accept(listener, arguments.seed, arguments.goaway_every));
    tell(&Message::Ready)?;
    let mut commands = Commands::new();
    while commands.next().await?.is_some() {}
    Ok(())
}

/// A path that no pattern of a storm covers.
pub(super) fn unwatched_path(socket: &Path) -> PathBuf {
    socket.with_file_name("elsewhere.sock")
}

async fn accept(listener: UnixListener, mut seed: u64, goaway_every: u64) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        seed = seed.wrapping_add(1);
        let socket = Socket::new(stream, seed)?;
        // A client that is killed or leaves ends its connection with an error: that is its part.
        tokio::spawn(async move { connection(socket, seed, goaway_every).await });
    }
}

async fn connection(socket: Socket, seed: u64, goaway_every: u64) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake::<_, Bytes>(socket)
        .await?;
    let mut accepted = 0;
    while let Some(call) = connection.accept().await {
        let (request, response) = call?;
        accepted += 1;
        if accepted == goaway_every {
            connection.graceful_shutdown();
        }
        let rng = Rng::with_seed(seed ^ (accepted << 32));
        tokio::spawn(async move {
            if let Err(error) = answer(request, response, rng).await
                && !is_clients_doing(&error)
            {
                eprintln!("storm-server: {error:#}"); // the client will miss its answer
            }
        });
    }
    Ok(())
}

/// The client cancelled, or is gone.
fn is_clients_doing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<h2::Error>().is_some_and(|error| error.is_io() || error.is_reset() || error.is_go_away())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, mut rng: Rng) -> Result<()> {
    let header = request.headers().get(ANSWER).context("a call without its answer")?;
    let answer: Answer = serde_json::from_slice(header.as_bytes())?;
    if let Answer::Silence { message } = answer {
        let mut stream = respond.send_response(headers(), false)?;
        if message {
            stream.send_data(plan::response(None, 100, &mut rng), false)?;
        }
        drain(request.into_body()).await?;
        std::future::poll_fn(|context| stream.poll_reset(context)).await?;
        return Ok(());
    }
    drain(request.into_body()).await?;
    match answer {
        Answer::Messages { count, padding_bytes, id } => {
            let mut stream = respond.send_response(headers(), false)?;
            for i in 0..count {
                let id = id.as_deref().filter(|_| i == 0);
                stream.send_data(plan::response(id, padding_bytes, &mut rng), false)?;
                if count > 1 {
                    tokio::time::sleep(Duration::from_millis(rng.u64(..3))).await; // events come one by one
                }
            }
            stream.send_trailers(trailers(0))?;
        }
        Answer::Error { code, after_headers: true } => {
            respond.send_response(headers(), false)?.send_trailers(trailers(code))?;
        }
        Answer::Error { code, after_headers: false } => {
            let mut only = headers();
            only.headers_mut().extend(trailers(code));
            respond.send_response(only, true)?;
        }
        Answer::Reset { reason, after_headers } => {
            if after_headers {
                respond.send_response(headers(), false)?.send_reset(Reason::from(reason));
            } else {
                respond.send_reset(Reason::from(reason));
            }
        }
        Answer::Silence { .. } => unreachable!("answered above"),
    }
    Ok(())
}

/// Takes a whole message in; it must be as long as its prefix says.
async fn drain(mut body: RecvStream) -> Result<()> {
    let mut first = Vec::new();
    let mut bytes = 0;
    while let Some(part) = body.data().await {
        let part = part?;
        bytes += part.len();
        first.extend(part.iter().take(5 - first.len().min(5)));
        body.flow_control().release_capacity(part.len())?;
    }
    let prefix: [u8; 5] = first.as_slice().try_into().context("a message without its prefix")?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    ensure!(bytes == length + prefix.len(), "a message of {length} bytes came with {bytes}");
    Ok(())
}

fn headers() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(code: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if code != 0 {
        trailers.insert("grpc-message", HeaderValue::from_static("as asked"));
    }
    trailers
}
