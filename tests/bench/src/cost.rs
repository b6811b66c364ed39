//! What the probes add to system calls: the same work in turns, with an agent attached and without one.
//!
//! Times are CPU time of the one thread that works, so that the agent's own work is not in them. In a virtual machine that
//! counts instructions instead of time, nanoseconds are instructions of the guest.

use std::path::Path;
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
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// Slices of each work in a turn
    #[arg(long, default_value_t = 50)]
    slices: usize,
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

/// Units that are timed together. What else runs on the machine only adds time, to some slices more than to others: the quarter
/// of a turn's that took least tells what the work took.
const SLICE: usize = 100;
/// The same of calls, and the pause between: a node has a few hundred calls a second, not as many as it can make. Without pauses
/// the agent would be flooded, lost records cost less than others, and where two CPUs share a core its work slows the bench.
const CALLS: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// Until the agent has nothing left to do.
const REST: Duration = Duration::from_millis(500);

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Work {
    name: &'static str,
    /// System calls in a unit.
    system_calls: u32,
    /// Whether the agent is told of it.
    is_told: bool,
    /// Most nanoseconds that probes may add to a unit, and in which modes; without one, in all.
    bar: Option<(u32, Option<&'static str>)>,
}

const WORKS: [Work; 5] = [
    Work { name: "CRI call on a watched socket", system_calls: 4, is_told: true, bar: Some((2_000, None)) },
    Work { name: "the same, a write for each frame of the request", system_calls: 5, is_told: true, bar: None },
    Work {
        name: "send and receive on an unwatched unix socket",
        system_calls: 2,
        is_told: false,
        bar: Some((200, None)),
    },
    Work {
        name: "system call outside the read and write family",
        system_calls: 1,
        is_told: false,
        bar: Some((60, Some("tracepoint"))),
    },
    Work { name: "send and receive over TCP", system_calls: 2, is_told: false, bar: Some((100, Some("kprobe"))) },
];

/// What one kind of work cost.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    system_calls: u32,
    /// Medians over the turns, nanoseconds a unit; what is added, of each turn by itself.
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
    ensure!(options.turns > 0 && options.slices > 0, "there is nothing to measure");
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
    config["enrich"] = json!({"runtime": "off"}); // nor is anything asked
    config["capture"]["mode"] = json!(mode);
    config["capture"]["max_cpu_ratio"] = json!(null); // this is a load that no node has
    let mut agent = Agent::start(directory, ports, &config)?;
    let attached = agent.wait_until_attached().await?;
    Ok((agent, attached))
}

/// Does every work in slices and adds to its samples what a unit took, in nanoseconds.
fn measure<'a>(socket: &Path, options: &Options, samples: impl Iterator<Item = &'a mut Vec<f64>>) -> Result<()> {
    let mut calls = Calls::connect(socket)?;
    let mut split = Calls::connect(socket)?;
    let mut unwatched = Unwatched::connect()?;
    let mut tcp = Tcp::connect()?;
    let mut works: [&mut dyn FnMut() -> Result<()>; 5] = [
        &mut || calls.call(),
        &mut || split.call_in_two_writes(),
        &mut || unwatched.message(),
        &mut unrelated,
        &mut || tcp.message(),
    ];
    for ((work, act), samples) in WORKS.iter().zip(&mut works).zip(samples) {
        if !work.name.contains(&options.only) {
            continue;
        }
        let slice = if work.is_told { CALLS } else { SLICE };
        let mut slices = Vec::new();
        for _ in 0..options.slices {
            if work.is_told {
                std::thread::sleep(PAUSE);
            }
            act()?; // caches
            let before_ns = thread_cpu_ns();
            (0..slice).try_for_each(|_| act()).context(work.name)?;
            slices.push((thread_cpu_ns() - before_ns) as f64 / slice as f64);
        }
        samples.push(quantile(slices, 4));
        if work.is_told {
            std::thread::sleep(REST);
        }
    }
    Ok(())
}

fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn row(work: &Work, mode: &str, (without, with): (Vec<f64>, Vec<f64>)) -> Row {
    let added = without.iter().zip(&with).map(|(without, with)| with - without).collect();
    let (without_ns, with_ns, added_ns) = (quantile(without, 2), quantile(with, 2), quantile(added, 2));
    let holds = |only: Option<&str>| only.is_none_or(|only| only == mode);
    Row {
        work: work.name,
        system_calls: work.system_calls,
        without_ns,
        with_ns,
        added_ns,
        bar_ns: work.bar.filter(|(_, only)| holds(*only)).map(|(bar, _)| bar),
    }
}

/// The value below which one part in `parts` lies.
fn quantile(mut samples: Vec<f64>, parts: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / parts]
}

fn print(mode: &str, rows: &[Row]) {
    println!("{:<48} without     with    added      bar", format!("{mode} probes, ns of CPU a unit"));
    for row in rows {
        let bar = row.bar_ns.map_or_else(String::new, |bar| bar.to_string());
        println!("{:<48}{:>8.0} {:>8.0} {:>8.0} {bar:>8}", row.work, row.without_ns, row.with_ns, row.added_ns);
    }
}
