//! Execs without a runtime, so that they can be checked on any kernel: this process stands for one by answering on a watched
//! socket, and what it starts is what a runtime starts.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use spanlet::capture::clock::Clock;
use spanlet::capture::execs::Execs;
use spanlet::capture::record::Record;
use spanlet::exec::Exec;

use crate::agent::{self, Agent, Ports};

/// From a process's end to its record.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// In what must not be copied.
const CANARY: &str = "canary-11c9";
/// Ends with this code, after a child of its own.
const SCRIPT: &str = "/bin/cat /dev/null; exit 3";
/// Executes a program in a mount namespace of its own, as a container's process does.
const LEAVES: [&str; 4] = ["-m", "/bin/cat", "/dev/null", CANARY];

/// Starts an agent and processes, and compares what the kernel told of these with what they were.
///
/// # Errors
/// What was told otherwise, or not at all.
pub async fn check(capture_mode: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("cri.sock");
    let listener = UnixListener::bind(&socket).context("listen as a runtime does")?;
    let events = directory.path().join("events");
    let ports = Ports::free()?;
    let mut config = agent::config(&ports, &socket, "http://127.0.0.1:1");
    config["capture"]["dump_events"] = json!(events);
    config["capture"]["mode"] = json!(capture_mode);
    // Else the agent asks this runtime for its pods, and it may be the agent whom `serve` accepts.
    config["enrich"] = json!({"runtime": "off"});
    let mut agent = Agent::start(directory.path(), ports, &config)?;
    agent.wait_until_attached().await?;
    let reasons = agent.status().await?.capture.reasons;
    ensure!(!reasons.iter().any(|reason| reason.starts_with("execs are not seen")), "{}", reasons.join("; "));
    serve(&listener, &socket)?;

    let variables = variables();
    let left = Command::new("unshare").args(LEAVES).stderr(Stdio::null()).status().context("run unshare")?;
    let status = Command::new("sh").args(["-c", SCRIPT]).env_clear().envs(variables.clone()).status()?;
    let Ok(told) = tokio::time::timeout(TOLD_WITHIN, wait_for_ends(&events)).await else {
        let (told, counted) = (told(&events)?, agent.status().await?.events);
        bail!("the ends of processes were not told, but {told:?}; counted were {counted:?}\n{}", agent.log());
    };
    let told = told?;
    agent.stop().await?;
    compare(&told, &variables, status)?;
    let bytes = std::fs::read(&events)?;
    let copied = bytes.windows(CANARY.len()).filter(|window| *window == CANARY.as_bytes()).count();
    // Once in the arguments of `unshare`, which ran in this process's namespaces; not again in those of what it executed.
    ensure!(copied == 1, "{CANARY} was copied {copied} times, {left}");
    Ok(())
}

/// Reads what a client writes: from then on the programs know this process for a runtime. They may know it already.
fn serve(listener: &UnixListener, socket: &Path) -> Result<()> {
    let mut client = UnixStream::connect(socket).context("connect as kubelet does")?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?; // RFC 9113 §3.4
    server.read_exact(&mut [0; 24])?;
    Ok(())
}

/// In the order in which they stand in the environment: `Command` sorts them.
fn variables() -> Vec<(String, String)> {
    let filler = (0..200).map(|number| (format!("A_{number:03}"), "x".repeat(number)));
    let copied = [
        ("CNI_ARGS".to_owned(), format!("K8S_POD_NAME={}", "y".repeat(500))),
        ("CNI_COMMAND".to_owned(), "ADD".to_owned()),
        ("CNI_EMPTY".to_owned(), String::new()),
        // With its name and final zero exactly as long as the piece in which the environment is looked through.
        ("CNI_PIECE".to_owned(), "z".repeat(256 - "CNI_PIECE=".len() - 1)),
    ];
    // The second piece of this one begins as a variable does that is copied.
    let long = ("FILLED".to_owned(), format!("{}CNI_{CANARY}", "x".repeat(255 - "FILLED=".len())));
    let others = [("CNI".to_owned(), CANARY.to_owned()), ("PATH".to_owned(), "/bin:/usr/bin".to_owned()), long];
    filler.chain(copied).chain(others).collect()
}

/// Everything that was told, once the script has ended.
async fn wait_for_ends(events: &Path) -> Result<Vec<Exec>> {
    loop {
        let told = told(events)?;
        if told.iter().any(|exec| is_script(exec) && exec.ended_ns.is_some()) {
            return Ok(told);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn is_script(exec: &Exec) -> bool {
    exec.argv.last().is_some_and(|last| last == SCRIPT)
}

fn told(events: &Path) -> Result<Vec<Exec>> {
    let bytes = std::fs::read(events)?;
    let (mut execs, mut told) = (Execs::default(), Vec::new());
    let mut rest = bytes.as_slice();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        // The last record may still be being written.
        let Some((record, more)) = more.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        execs.record(&Record::parse(record)?, Clock::sample(), &mut |exec| told.push(exec));
        rest = more;
    }
    Ok(told)
}

fn compare(told: &[Exec], variables: &[(String, String)], status: ExitStatus) -> Result<()> {
    let find = |what: &str, is_it: &dyn Fn(&Exec) -> bool| {
        told.iter()
            .find(|exec| exec.ended_ns.is_some() && is_it(exec))
            .with_context(|| format!("no {what} in {told:?}"))
    };
    let script = find("script", &is_script)?;
    ensure!(status.code() == Some(3) && script.exit_status == Some(0x0300), "{status} was told as {script:?}");
    ensure!(script.parent_pid == std::process::id(), "{script:?} is a child of {}", std::process::id());
    ensure!(script.argv[..2] == ["sh", "-c"], "{:?}", script.argv);
    let copied = variables.iter().filter(|(name, _)| name.starts_with("CNI_"));
    let copied: Vec<String> = copied.map(|(name, value)| format!("{name}={value}")).collect();
    ensure!(script.cni == copied, "told were {:?}, not {copied:?}", script.cni);

    let child = find("child of the script", &|exec| exec.parent_pid == script.pid)?;
    ensure!(child.argv == ["/bin/cat", "/dev/null"] && child.exit_status == Some(0), "{child:?}");
    let handed_on: BTreeSet<&String> = child.cni.iter().collect(); // a shell orders them anew
    ensure!(handed_on == copied.iter().collect(), "a child was told {:?}, not {copied:?}", child.cni);
    ensure!(script.started_ns < child.started_ns && child.ended_ns <= script.ended_ns, "{script:?}, {child:?}");

    let left = find("process that left", &|exec| exec.argv.first().is_some_and(|program| program == "unshare"))?;
    ensure!(left.exit_status.is_none() && left.cpu_ns.is_none(), "{left:?} was followed into other namespaces");
    Ok(())
}
