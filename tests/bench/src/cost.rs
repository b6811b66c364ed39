//! What the probes add to system calls: the same work in turns, with an agent attached and without one.
//!
//! Times are CPU time of the one thread that works, so that the agent's own work is not in them. In a virtual machine that
//! counts instructions instead of time, nanoseconds are instructions of the guest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::json;
use spanlet_node::agent::{self, Agent, Ports};

use crate::work::{Calls, Tcp, Unwatched, unrelated};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The agent's `capture.mode`
    #[arg(long, default_value = "auto")]
    capture_mode: String,
    /// Turns with and without probes
    #[arg(long, default_value_t = 7)]
    turns: usize,
    /// Units of each work in a turn
    #[arg(long, default_value_t = 20_000)]
    units: u32,
    /// Only work whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fail if a bar of the design is missed
    #[arg(long)]
    check: bool,
}

/// A node has a few hundred calls a second, not as many as it can make: without pauses the agent would be flooded, and lost
/// records cost less than others.
const BURST: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Work {
    name: &'static str,
    /// System calls in a unit.
    system_calls: u32,
    /// Most nanoseconds that probes may add to a unit, and in which modes; `None` = in all.
    bar: Option<(u32, Option<&'static str>)>,
}

const WORKS: [Work; 4] = [
    Work { name: "gRPC call on a watched socket", system_calls: 5, bar: Some((2_000, None)) },
    Work { name: "send and receive on an unwatched unix socket", system_calls: 2, bar: Some((200, None)) },
    Work {
        name: "system call outside the read and write family",
        system_calls: 1,
        bar: Some((60, Some("tracepoint"))),
    },
    Work { name: "send and receive over TCP", system_calls: 2, bar: Some((100, Some("kprobe"))) },
];

/// What one kind of work cost.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    system_calls: u32,
    /// Medians over the turns, nanoseconds a unit.
    without_ns: f64,
    with_ns: f64,
    added_ns: f64,
    /// Most that may be added in this mode.
    bar_ns: Option<u32>,
}

/// Measures and prints.
///
/// # Errors
/// When probes cannot be attached, or a bar is missed and that was to be checked.
pub async fn run(options: &Options) -> Result<()> {
    ensure!(options.turns > 0 && options.units > 0, "there is nothing to measure");
    let directory = tempfile::Builder::new().prefix("spanlet-bench-").tempdir()?;
    let socket = directory.path().join("cri.sock");
    let mut samples: Vec<(Vec<f64>, Vec<f64>)> = WORKS.map(|_| Default::default()).to_vec();
    let mut mode = String::new();
    for turn in 0..options.turns {
        measure(&socket, options, samples.iter_mut().map(|(without, _)| without))?;
        let (mut agent, attached) = attach(directory.path(), &socket, &options.capture_mode).await?;
        measure(&socket, options, samples.iter_mut().map(|(_, with)| with))?;
        agent.stop().await?;
        eprintln!("turn {} of {}: {attached} probes", turn + 1, options.turns);
        mode = attached;
    }
    let rows: Vec<Row> = WORKS
        .iter()
        .zip(samples)
        .filter(|(_, (with, _))| !with.is_empty())
        .map(|(work, samples)| row(work, &mode, samples))
        .collect();
    if options.json {
        println!("{}", json!({"capture_mode": mode, "rows": rows}));
    } else {
        print(&mode, &rows);
    }
    let missed = rows.iter().filter(|row| row.bar_ns.is_some_and(|bar| row.added_ns > f64::from(bar))).count();
    ensure!(!options.check || missed == 0, "{missed} bars are missed");
    Ok(())
}

async fn attach(directory: &Path, socket: &Path, mode: &str) -> Result<(Agent, String)> {
    let ports = Ports::free()?;
    let mut config = agent::config(&ports, socket, "http://127.0.0.1:1");
    config["export"] = json!({}); // nothing leaves
    config["capture"]["mode"] = json!(mode);
    config["capture"]["max_cpu_ratio"] = json!(null); // this is a load that no node has
    let mut agent = Agent::start(directory, ports, &config)?;
    let attached = agent.wait_until_attached().await?;
    Ok((agent, attached))
}

/// Does every work once and adds nanoseconds a unit to its samples.
fn measure<'a>(socket: &Path, options: &Options, samples: impl Iterator<Item = &'a mut Vec<f64>>) -> Result<()> {
    let mut calls = Calls::connect(&PathBuf::from(socket))?;
    let mut unwatched = Unwatched::connect()?;
    let mut tcp = Tcp::connect()?;
    let mut works: [&mut dyn FnMut() -> Result<()>; 4] =
        [&mut || calls.call(), &mut || unwatched.message(), &mut unrelated, &mut || tcp.message()];
    let wanted = WORKS.iter().map(|work| work.name.contains(&options.only));
    let works = works.iter_mut().zip(samples).zip(wanted).filter(|(_, wanted)| *wanted).map(|(work, _)| work);
    let units = options.units;
    for (work, samples) in works {
        (0..units / 10).try_for_each(|_| work())?; // caches
        let before_ns = thread_cpu_ns();
        for unit in 0..units {
            work().context("work on a socket")?;
            if unit % BURST == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        samples.push((thread_cpu_ns() - before_ns) as f64 / f64::from(units));
    }
    Ok(())
}

fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn row(work: &Work, mode: &str, (without, with): (Vec<f64>, Vec<f64>)) -> Row {
    let (without_ns, with_ns) = (median(without), median(with));
    let holds = |only: Option<&str>| only.is_none_or(|only| only == mode);
    Row {
        work: work.name,
        system_calls: work.system_calls,
        without_ns,
        with_ns,
        added_ns: with_ns - without_ns,
        bar_ns: work.bar.filter(|(_, only)| holds(*only)).map(|(bar, _)| bar),
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn print(mode: &str, rows: &[Row]) {
    println!("{mode} probes, ns of CPU a unit        without     with    added      bar");
    for row in rows {
        let bar = row.bar_ns.map_or_else(String::new, |bar| bar.to_string());
        println!("{:<45}{:>8.0} {:>8.0} {:>8.0} {bar:>8}", row.work, row.without_ns, row.with_ns, row.added_ns);
    }
}
