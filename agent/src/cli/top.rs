//! `spanlet top`: the methods whose calls took longest in the last minute, over and over on a terminal.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use crate::api::CallEntry;

use super::calls::fetch;
use super::client::{Failure, Output, Target};
use super::render::table::{Align, Table};
use super::render::{self, Terminal, nanoseconds, short_name};

/// What is summed up.
const WINDOW: Duration = Duration::from_secs(60);

const REFRESH: Duration = Duration::from_secs(1);

/// Most lines; the slowest.
const MAX_METHODS: usize = 20;

/// Cursor to the top left, clear to the end of the screen.
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print once, even on a terminal.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub target: Target,
}

/// The calls of one method in the window.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
struct Method {
    method: String,
    calls: u64,
    running: u64,
    failed: u64,
    /// The longest call of those whose four phases are known.
    max_ns: Option<u64>,
    /// Sums over the calls whose phase is known.
    request_wait_ns: u64,
    handling_ns: u64,
    response_send_ns: u64,
    response_wait_ns: u64,
}

pub async fn run(args: &Args, terminal: &Terminal, out: &mut impl Write) -> Result<(), Failure> {
    loop {
        let calls = fetch(&args.target, None, Some(WINDOW)).await?;
        let methods = slowest(&calls);
        if args.target.output == Output::Json {
            return Ok(render::json(out, &methods)?);
        }
        let goes_on = terminal.is_terminal && !args.once;
        if goes_on {
            write!(out, "{HOME_AND_CLEAR}")?;
        }
        writeln!(out, "calls of the last {} s on {}\n", WINDOW.as_secs(), args.target.admin)?;
        table(&methods).write(out, terminal)?;
        out.flush()?;
        if !goes_on {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
    }
}

fn slowest(calls: &[CallEntry]) -> Vec<Method> {
    let mut by_name: BTreeMap<&str, Method> = BTreeMap::new();
    for call in calls {
        let name = call.method.as_deref().unwrap_or("(unnamed)");
        let method = by_name.entry(name).or_insert_with(|| Method { method: name.to_owned(), ..Method::default() });
        method.calls += 1;
        method.running += u64::from(!call.is_over());
        method.failed += u64::from(call.status.is_some_and(|status| status != 0));
        let phases = [call.request_wait_ns, call.handling_ns, call.response_send_ns, call.response_wait_ns];
        let [request_wait, handling, response_send, response_wait] = phases.map(Option::unwrap_or_default);
        method.request_wait_ns += request_wait;
        method.handling_ns += handling;
        method.response_send_ns += response_send;
        method.response_wait_ns += response_wait;
        method.max_ns = method.max_ns.max(phases.into_iter().sum());
    }
    let mut methods: Vec<_> = by_name.into_values().collect();
    methods.sort_by_key(|method| std::cmp::Reverse(method.max_ns));
    methods.truncate(MAX_METHODS);
    methods
}

fn table(methods: &[Method]) -> Table {
    let mut table = Table::new(&[
        ("METHOD", Align::Shrink),
        ("CALLS", Align::Right),
        ("RUNNING", Align::Right),
        ("FAILED", Align::Right),
        ("SLOWEST", Align::Right),
        ("IN SERVER", Align::Right),
        ("WAITING", Align::Right),
    ]);
    for method in methods {
        table.push([
            short_name(&method.method).to_owned(),
            method.calls.to_string(),
            method.running.to_string(),
            method.failed.to_string(),
            method.max_ns.map_or_else(|| "-".to_owned(), nanoseconds),
            nanoseconds(method.handling_ns + method.response_send_ns),
            nanoseconds(method.request_wait_ns + method.response_wait_ns),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Option<&str>, status: Option<u8>, phases_ns: [Option<u64>; 4]) -> CallEntry {
        CallEntry {
            connection: 1,
            stream: 1,
            method: method.map(Into::into),
            naming: "wire".into(),
            traceparent: None,
            status,
            pod: None,
            sandbox_id: None,
            container_id: None,
            request_wait_ns: phases_ns[0],
            handling_ns: phases_ns[1],
            response_send_ns: phases_ns[2],
            response_wait_ns: phases_ns[3],
            client_pid: None,
            server_pid: None,
            guess: None,
            over: false,
            lost_track: false,
        }
    }

    #[test]
    fn methods_are_summed_up_and_sorted_by_their_slowest_call() {
        let methods = slowest(&[
            call(Some("a.B/Quick"), Some(0), [Some(1), Some(2), Some(3), Some(4)]),
            call(Some("a.B/Slow"), Some(5), [Some(10), Some(200), Some(0), Some(0)]),
            call(Some("a.B/Slow"), None, [Some(7), None, None, None]),
            call(None, Some(0), [None; 4]),
        ]);
        let names: Vec<_> = methods.iter().map(|method| method.method.as_str()).collect();
        assert_eq!(names, ["a.B/Slow", "a.B/Quick", "(unnamed)"]);
        let slow = &methods[0];
        assert_eq!((slow.calls, slow.running, slow.failed, slow.max_ns), (2, 1, 1, Some(210)));
        assert_eq!((slow.request_wait_ns, slow.handling_ns), (17, 200));
    }
}
