//! Asks the running kernel what it can do, and attaches by the plan: the first mode that loads and links is taken.

use super::Mode;
use super::attach::{self, Attached, Setup};
use super::cast;
use super::identity::Identity;
use super::ladder::{self, Features, Plan};
use super::layout::{self, FUNCTIONS, FUNCTIONS_UNTIL_6_4, LayoutReport, TRACEPOINTS};
use super::paths::{self, PathError};
use super::preemption;
use crate::{config, observe};

/// Nothing could be attached; the reasons say why, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("no kernel probes: {}", reasons.join("; "))]
pub struct NoProbes {
    pub reasons: Vec<String>,
}

/// What was attached, and why that.
#[derive(Debug)]
pub struct Outcome {
    pub attached: Attached,
    pub reasons: Vec<String>,
}

/// Attaches what the configuration asks for and the kernel has.
///
/// # Errors
/// The reasons why nothing could be attached.
pub fn attach(config: &config::Capture) -> Result<Outcome, NoProbes> {
    let failed = |reason: String| NoProbes { reasons: vec![reason] };
    if config.mode == config::CaptureMode::Off {
        return Err(failed("capture.mode is off".to_owned()));
    }
    let report = layout::of_running_kernel().map_err(|error| failed(observe::explain(&error)))?;
    give_memory_back();
    let identity = Identity::of_this_process().map_err(|error| failed(format!("reading /proc/self/ns: {error}")))?;
    let paths = paths::watched(&config.sockets).map_err(|error: PathError| failed(error.to_string()))?;
    let btf = aya::Btf::from_sys_fs()
        .map_err(|error| failed(format!("reading the kernel's types: {}", observe::explain(&error))))?;
    let Plan { modes, mut reasons } = ladder::plan(config.mode, &features(&report, &btf));
    let setup = Setup {
        btf: &btf,
        layout: &report.layout,
        rdonly_cast: report.rdonly_cast,
        functions: &report.functions,
        missing_for_execs: &report.missing_for_execs,
        identity,
        paths: &paths,
        ring_bytes: config.ring_bytes,
    };
    for mode in modes {
        match attach::attach(mode, &setup) {
            Ok(attached) => {
                reasons.push(format!("{} attached", mode.name()));
                reasons.extend(attached.without_cast.as_ref().map(without_cast));
                reasons.extend(attached.without_old.as_ref().map(|error| observe::explain(error)));
                reasons.extend(attached.without_execs.as_ref().map(|error| one_line(error)));
                give_memory_back();
                return Ok(Outcome { attached, reasons });
            }
            Err(error) => reasons.push(refusal(mode, &error)),
        }
    }
    Err(NoProbes { reasons })
}

fn features(report: &LayoutReport, btf: &aya::Btf) -> Features {
    let mut tracepoints_missing: Vec<_> =
        TRACEPOINTS.into_iter().filter(|name| !report.tracepoints.contains(name)).collect();
    if FUNCTIONS_UNTIL_6_4.iter().any(|name| report.functions.contains(name)) {
        tracepoints_missing.push("sock_send_length of pages"); // 6.3 and 6.4: they pass it by
    }
    Features {
        preemption: preemption::of_running_kernel(btf, &report.without_preemption),
        functions_missing: FUNCTIONS.into_iter().filter(|name| !report.functions.contains(name)).collect(),
        tracepoints_missing,
        fields_missing: report.missing.clone(),
    }
}

fn without_cast(error: &attach::AttachError) -> String {
    format!("programs that call {} were refused, memory is read by helpers: {}", cast::FUNCTION, one_line(error))
}

/// Lines of the verifier's log that tell why it refused a program; before them stands how it came there.
const LOG_TAIL_LINES: usize = 3;

fn refusal(mode: Mode, error: &attach::AttachError) -> String {
    format!("{}: {}", mode.name(), one_line(error))
}

/// One line, with what the administrator can do where the kernel only says "not permitted".
fn one_line(error: &dyn std::error::Error) -> String {
    let text = observe::explain(error);
    let (first, log) = text.split_once('\n').unwrap_or((&text, ""));
    let mut log: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = log.split_off(log.len().saturating_sub(LOG_TAIL_LINES)).join(" / ");
    let separator = if tail.is_empty() { "" } else { " " };
    let hint = if text.contains("Operation not permitted") {
        " (needs CAP_BPF and CAP_PERFMON, and no lockdown that forbids it)"
    } else {
        ""
    };
    format!("{first}{separator}{tail}{hint}")
}

/// The kernel's types take some 60 MB to read: the allocator keeps freed pages unless asked.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments but how much to keep; thread-safe (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
