//! The upstream as a program: commands on standard input, counts on standard output.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Answer, Behaviour, Keep, Upstream};

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to listen; port 0 takes a free one, which is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Write all that is accepted: varint-delimited `ExportTraceServiceRequest`s
    #[arg(long, value_name = "FILE")]
    pub spans: Option<PathBuf>,
}

/// Serves until standard input ends. Commands, one a line: `accept`, `refuse CODE [RETRY_MS]`, `delay MS`, `die`, `revive`,
/// `counts`.
pub async fn serve(options: &Options) -> Result<()> {
    let keep = match &options.spans {
        Some(path) => Keep::File(std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?),
        None => Keep::Ids,
    };
    let mut upstream = Upstream::start_on(options.listen, keep)?;
    println!("{}", upstream.endpoint());
    let mut behaviour = Behaviour::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if let Err(error) = obey(&line, &mut upstream, &mut behaviour) {
            eprintln!("{line}: {error:#}");
        }
        let received = upstream.received();
        let (spans, duplicates) = (received.span_count(), received.duplicate_count());
        println!("{spans} spans, {duplicates} duplicates, {} requests refused", received.refused_count());
    }
    Ok(())
}

fn obey(line: &str, upstream: &mut Upstream, behaviour: &mut Behaviour) -> Result<()> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words.as_slice() {
        ["counts"] => {}
        ["die"] => upstream.die(),
        ["revive"] => upstream.revive()?,
        ["accept"] => behaviour.answer = Answer::Accept,
        ["refuse", code] => behaviour.answer = Answer::Refuse { code: grpc_code(code)?, retry_after: None },
        ["refuse", code, retry] => {
            behaviour.answer = Answer::Refuse { code: grpc_code(code)?, retry_after: Some(milliseconds(retry)?) };
        }
        ["delay", delay] => behaviour.delay = milliseconds(delay)?,
        _ => bail!("one of accept, refuse CODE [RETRY_MS], delay MS, die, revive, counts"),
    }
    upstream.behave(behaviour.clone());
    Ok(())
}

fn grpc_code(text: &str) -> Result<tonic::Code> {
    Ok(tonic::Code::from(text.parse::<i32>().context("the number of a gRPC code")?))
}

fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse().context("milliseconds")?))
}
