//! The stand-in for kubelet: makes calls, many at a time over a few connections, and tells what it knows of each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use fastrand::Rng;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Version};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::churn::client as churn;
use super::fact::{Fact, Outcome};
use super::plan::{Ending, Plan, TIMEOUT_MS};
use super::pool::Pool;
use super::process::{Command, Commands, Message, tell};
use super::server::ANSWER;

/// Longer than a deadline by what makes sure that it has passed.
const EXPIRED: Duration = Duration::from_millis(TIMEOUT_MS + 5);

/// The client's part of the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArguments {
    pub socket: PathBuf,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
}

/// Does what the conductor says until it is told to end or the conductor is gone.
///
/// # Errors
/// When a call does not go as its plan says.
pub async fn run(arguments: ClientArguments) -> Result<()> {
    let mut rng = Rng::with_seed(arguments.seed);
    let pool = Arc::new(Pool::new(arguments.socket, arguments.connections, arguments.seed));
    let mut hanging = Vec::new();
    let mut commands = Commands::new();
    tell(&Message::Ready)?;
    while let Some(command) = commands.next().await? {
        match command {
            Command::Run { calls, at_a_time } => make(&pool, &mut rng, calls, at_a_time).await?,
            Command::Hang { calls } => {
                for slot in 0..calls {
                    hanging.push(hang(&pool, slot as usize, &mut rng).await?);
                }
            }
            Command::Churn { seconds, connections_per_second, calls_per_second } => {
                let rates = [connections_per_second, calls_per_second];
                let connections = churn::run(&pool, &mut rng, Duration::from_secs(seconds), rates).await?;
                tell(&Message::Churned { connections })?;
            }
            Command::End => {
                drop(hanging);
                pool.close().await;
                return tell(&Message::Done);
            }
        }
        tell(&Message::Done)?;
    }
    Ok(())
}

/// Makes calls by so many workers, each one call after the other.
async fn make(pool: &Arc<Pool>, rng: &mut Rng, calls: u64, at_a_time: usize) -> Result<()> {
    let left = Arc::new(Mutex::new((calls, rng.fork())));
    let mut workers: JoinSet<Result<()>> = JoinSet::new();
    for slot in 0..at_a_time {
        let (pool, left) = (Arc::clone(pool), Arc::clone(&left));
        workers.spawn(async move {
            loop {
                let mut rng = {
                    let mut left = left.lock().await;
                    if left.0 == 0 {
                        return Ok(());
                    }
                    left.0 -= 1;
                    left.1.fork()
                };
                let plan = Plan::draw(&mut rng);
                call(&pool, slot, &plan, &mut rng).await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.context("a worker")??;
    }
    Ok(())
}

/// Makes a call and tells of it.
pub(super) async fn call(pool: &Pool, slot: usize, plan: &Plan, rng: &mut Rng) -> Result<()> {
    let request = plan.request(rng);
    let mut open = Open::send(pool, slot, plan, &request).await?;
    let outcome = match open.end(plan, rng).await {
        Ok(outcome) => outcome,
        Err(error) => outcome_of(&error)?,
    };
    tell(&Message::Call(Fact::new(plan, open.stream, outcome, open.since.elapsed().as_nanos() as u64)))
}

/// Opens a call that stays open: it is on the wire when the server has begun to answer.
async fn hang(pool: &Pool, slot: usize, rng: &mut Rng) -> Result<(Open, RecvStream)> {
    let plan = Plan::hanging(rng);
    let request = plan.request(rng);
    let mut open = Open::send(pool, slot, &plan, &request).await?;
    let response = (&mut open.response).await.context("a call that is to stay open")?;
    tell(&Message::Call(Fact::new(&plan, open.stream, Outcome::Abandoned, 0)))?;
    Ok((open, response.into_body()))
}

/// What became of a call that failed.
fn outcome_of(error: &anyhow::Error) -> Result<Outcome> {
    let Some(error) = error.downcast_ref::<h2::Error>() else { bail!("{error:#}") };
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => Ok(Outcome::Reset(reason.into())),
        _ => Ok(Outcome::Unsure), // the connection broke
    }
}

/// A call whose request was handed to its connection.
#[derive(Debug)]
struct Open {
    connection: SendRequest<Bytes>,
    stream: u32,
    since: Instant,
    response: ResponseFuture,
    request: SendStream<Bytes>,
}

// === impl Open ===

impl Open {
    async fn send(pool: &Pool, slot: usize, plan: &Plan, message: &Bytes) -> Result<Self> {
        loop {
            let mut connection = pool.connection(slot).await?;
            let since = Instant::now();
            let Ok((response, mut request)) = connection.send_request(request(plan)?, false) else {
                continue; // it broke just now: nothing was sent
            };
            let stream = response.stream_id().as_u32();
            let half = plan.ending == Ending::CancelsHalfSent;
            let sent = if half { message.slice(..message.len() / 2) } else { message.clone() };
            let _ = request.send_data(sent, !half); // the response tells of an error
            return Ok(Self { connection, stream, since, response, request });
        }
    }

    async fn end(&mut self, plan: &Plan, rng: &mut Rng) -> Result<Outcome> {
        if plan.ending == Ending::CancelsHalfSent {
            self.confirm(rng).await?;
            return self.cancel(Outcome::Cancelled, rng).await;
        }
        let response = (&mut self.response).await?;
        match plan.ending {
            Ending::Waits => {}
            Ending::Cancels => return self.cancel(Outcome::Cancelled, rng).await,
            Ending::Expires | Ending::CancelsHalfSent => {
                tokio::time::sleep(EXPIRED).await;
                return self.cancel(Outcome::Expired, rng).await;
            }
        }
        if let Some(status) = status(response.headers())? {
            return Ok(Outcome::Answered(status));
        }
        let mut body = response.into_body();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
        }
        let trailers = body.trailers().await?.context("a response without trailers")?;
        Ok(Outcome::Answered(status(&trailers)?.context("trailers without a status")?))
    }

    async fn cancel(&mut self, outcome: Outcome, rng: &mut Rng) -> Result<Outcome> {
        self.request.send_reset(Reason::CANCEL);
        self.confirm(rng).await?;
        Ok(outcome)
    }

    /// Makes another call: when it is answered, what was sent before it is on the wire.
    async fn confirm(&mut self, rng: &mut Rng) -> Result<()> {
        let plan = Plan::unary(rng);
        let since = Instant::now();
        let (response, mut request) = self.connection.send_request(request(&plan)?, false)?;
        let stream = response.stream_id().as_u32();
        request.send_data(plan.request(rng), true)?;
        let mut later = Self { connection: self.connection.clone(), stream, since, response, request };
        let ended = Box::pin(later.end(&plan, rng)).await;
        let outcome = ended.as_ref().copied().unwrap_or(Outcome::Unsure);
        tell(&Message::Call(Fact::new(&plan, stream, outcome, since.elapsed().as_nanos() as u64)))?;
        ended.map(drop)
    }
}

fn request(plan: &Plan) -> Result<Request<()>> {
    let mut request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://localhost/{}", plan.full_method()))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .header("traceparent", &plan.traceparent)
        .header(ANSWER, serde_json::to_string(&plan.answer)?);
    if plan.ending == Ending::Expires {
        request = request.header("grpc-timeout", format!("{TIMEOUT_MS}m"));
    }
    Ok(request.body(())?)
}

fn status(headers: &http::HeaderMap<HeaderValue>) -> Result<Option<u8>> {
    let Some(value) = headers.get("grpc-status") else { return Ok(None) };
    let status: u8 = value.to_str()?.parse()?;
    ensure!(status <= 16, "{status} is no gRPC status");
    Ok(Some(status))
}
