//! `spanlet calls`: recent calls on the watched sockets.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::CallEntry;

use super::client::{self, Failure, Output, Target};
use super::render::table::{Align, Table};
use super::render::{self, Terminal, nanoseconds, short_name};

/// How often `--follow` asks.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How far `--follow` looks back each time: an answer may show a call late, when the ring is read late.
const FOLLOW_WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only this method: `RunPodSandbox`, or in full `runtime.v1.RuntimeService/RunPodSandbox`.
    #[arg(long)]
    pub method: Option<String>,
    /// Only calls that ended within this time, or run: `30s`, `5m`, `1h`.
    #[arg(long, value_parser = parse_age)]
    pub since: Option<Duration>,
    /// Go on and print calls as they end.
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub target: Target,
}

pub async fn run(args: &Args, terminal: &Terminal, out: &mut impl Write) -> Result<(), Failure> {
    let calls = fetch(&args.target, args.method.as_deref(), args.since).await?;
    if args.follow {
        return follow(args, calls, terminal, out).await;
    }
    match args.target.output {
        Output::Json => render::json(out, &calls)?,
        Output::Human if calls.is_empty() => writeln!(out, "no such calls were seen")?,
        Output::Human => table(&calls).write(out, terminal)?,
    }
    Ok(())
}

/// Recent calls from the agent; `since` counts back from now.
pub(super) async fn fetch(
    target: &Target,
    method: Option<&str>,
    since: Option<Duration>,
) -> Result<Vec<CallEntry>, Failure> {
    let mut query = Vec::new();
    if let Some(method) = method {
        query.push(format!("method={}", utf8_percent_encode(method, NON_ALPHANUMERIC)));
    }
    if let Some(age) = since {
        let then = SystemTime::now().checked_sub(age).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
        query.push(format!("since={}", then.unwrap_or_default().as_nanos()));
    }
    let path = if query.is_empty() { "/api/v1/calls".to_owned() } else { format!("/api/v1/calls?{}", query.join("&")) };
    client::get_list(target.admin, &path).await
}

/// Prints each finished call once, one JSON object or one line of the table at a time.
async fn follow(
    args: &Args,
    mut calls: Vec<CallEntry>,
    terminal: &Terminal,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut printed = HashSet::new();
    let mut with_head = true;
    loop {
        let mut seen = HashSet::new();
        calls.retain(|call| {
            let key = (call.connection, call.stream);
            call.is_over() && seen.insert(key) && !printed.contains(&key)
        });
        printed = if printed.len() > MAX_REMEMBERED { seen } else { &printed | &seen };
        match args.target.output {
            Output::Json => {
                for call in &calls {
                    serde_json::to_writer(&mut *out, call).map_err(std::io::Error::from)?;
                    writeln!(out)?;
                }
            }
            Output::Human if with_head => table(&calls).write(out, terminal)?,
            Output::Human => table(&calls).write_rows(out, terminal)?,
        }
        out.flush()?;
        with_head = false;
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        calls = fetch(&args.target, args.method.as_deref(), Some(FOLLOW_WINDOW)).await?;
    }
}

/// Calls printed that are remembered so as not to print them twice; of more, those of the last answer suffice.
const MAX_REMEMBERED: usize = 100_000;

fn table(calls: &[CallEntry]) -> Table {
    let mut table = Table::new(&[
        ("METHOD", Align::Fixed(24)),
        ("POD", Align::Fixed(28)),
        ("STATUS", Align::Fixed(7)),
        ("REQ WAIT", Align::Right),
        ("HANDLING", Align::Right),
        ("SEND", Align::Right),
        ("RESP WAIT", Align::Right),
    ]);
    let phase = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), nanoseconds);
    for call in calls {
        table.push([
            call.method.as_deref().map_or_else(|| unnamed(call), |method| short_name(method).to_owned()),
            call.pod.as_ref().map_or_else(|| "-".to_owned(), |pod| format!("{}/{}", pod.namespace, pod.name)),
            call.status.map_or_else(|| if call.is_over() { "?" } else { "-" }.to_owned(), status),
            phase(call.request_wait_ns),
            phase(call.handling_ns),
            phase(call.response_send_ns),
            phase(call.response_wait_ns),
        ]);
    }
    table
}

/// In place of the method; what it may be is marked as a guess.
fn unnamed(call: &CallEntry) -> String {
    match call.guess.as_ref().map_or(&[][..], |guess| &guess.methods) {
        [] => "(unnamed)".to_owned(),
        [one] => format!("({}?)", short_name(one)),
        [one, ..] => format!("({} …?)", short_name(one)),
    }
}

fn status(code: u8) -> String {
    if code == 0 { "ok".to_owned() } else { format!("err {code}") }
}

/// `90s`, `5m`, `2h`, `500ms`.
fn parse_age(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number with ms, s, m or h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number with ms, s, m or h".to_owned())?;
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_is_marked_and_no_name() {
        for (methods, shown) in [
            (None, "(unnamed)"),
            (Some(vec![]), "(unnamed)"),
            (Some(vec!["runtime.v1.RuntimeService/RunPodSandbox"]), "(RunPodSandbox?)"),
            (
                Some(vec!["runtime.v1.ImageService/ImageStatus", "runtime.v1.ImageService/RemoveImage"]),
                "(ImageStatus …?)",
            ),
        ] {
            let guess = methods.map(|methods| serde_json::json!({"methods": methods, "evidence": []}));
            let call = serde_json::json!({"connection": 1, "stream": 1, "naming": "unknown", "guess": guess});
            let call: CallEntry = serde_json::from_value(call).unwrap();
            assert_eq!(unnamed(&call), shown);
        }
    }

    #[test]
    fn ages_are_read_with_their_unit() {
        for (text, millis) in
            [("500ms", Some(500)), ("30s", Some(30_000)), ("5m", Some(300_000)), ("1h", Some(3_600_000))]
        {
            assert_eq!(parse_age(text).ok(), millis.map(Duration::from_millis), "{text}");
        }
        for text in ["", "5", "s", "-1s", "5 s", "1d", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }
}
