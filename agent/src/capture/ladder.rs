//! Which way of attaching is tried in which order, and why: a pure function of what the kernel can do.

use super::Mode;
use crate::config::CaptureMode;

/// Whether the kernel can preempt a task inside a program; then fentry and tracepoint programs are skipped now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
    /// None or voluntary.
    No,
    /// Full or lazy.
    Yes,
    /// Not told by this kernel: taken for yes.
    Unknown,
}

/// What is known before anything is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    pub preemption: Preemption,
    /// Kernel functions to attach to that have no BTF.
    pub functions_missing: Vec<&'static str>,
    /// Fields of the kernel's structures that were not found.
    pub fields_missing: Vec<&'static str>,
}

/// What to try, in order, and the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub modes: Vec<Mode>,
    pub reasons: Vec<String>,
}

/// Fields that only the modes need that are attached to functions: the message iterator's and the read buffer's.
const OF_MESSAGES: [&str; 10] =
    ["msg_iter", "iter_type", "iov", "ITER_IOVEC", "iov_offset", "count", "nr_segs", "socket", "cb", "consumed"];
/// Fields that only tracepoint mode needs.
const OF_DESCRIPTORS: [&str; 7] = ["files", "fdt", "max_fds", "fd", "private_data", "orig_ax", "r10"];

/// Chooses by what is there; a mode that was asked for is the only one tried.
pub fn plan(asked: CaptureMode, features: &Features) -> Plan {
    let mut reasons = Vec::new();
    let modes = match asked {
        CaptureMode::Off => {
            reasons.push("capture.mode is off".to_owned());
            Vec::new()
        }
        CaptureMode::Fentry => forced(Mode::Fentry, &mut reasons),
        CaptureMode::Kprobe => forced(Mode::Kprobe, &mut reasons),
        CaptureMode::Tracepoint => forced(Mode::Tracepoint, &mut reasons),
        CaptureMode::Auto => automatic(features, &mut reasons),
    };
    let modes = modes.into_iter().filter(|mode| usable(*mode, features, &mut reasons)).collect();
    Plan { modes, reasons }
}

fn forced(mode: Mode, reasons: &mut Vec<String>) -> Vec<Mode> {
    reasons.push(format!("capture.mode asks for {}", mode.label()));
    vec![mode]
}

fn automatic(features: &Features, reasons: &mut Vec<String>) -> Vec<Mode> {
    if features.preemption == Preemption::No {
        reasons.push("the kernel cannot preempt inside a program: fentry is exact and cheapest".to_owned());
        return vec![Mode::Fentry, Mode::Kprobe, Mode::Tracepoint];
    }
    reasons.push(match features.preemption {
        Preemption::Yes => "the kernel can preempt inside a program, fentry would miss events: kprobe first".to_owned(),
        _ => "whether the kernel can preempt inside a program is not known: kprobe first".to_owned(),
    });
    vec![Mode::Kprobe, Mode::Fentry, Mode::Tracepoint]
}

fn usable(mode: Mode, features: &Features, reasons: &mut Vec<String>) -> bool {
    let needless: &[&str] = if mode == Mode::Tracepoint { &OF_MESSAGES } else { &OF_DESCRIPTORS };
    let missing: Vec<&str> =
        features.fields_missing.iter().copied().filter(|field| !needless.contains(field)).collect();
    if !missing.is_empty() {
        reasons.push(format!("{}: the kernel's types lack {}", mode.label(), missing.join(", ")));
        return false;
    }
    if mode == Mode::Fentry && !features.functions_missing.is_empty() {
        reasons.push(format!("fentry: the kernel's types lack {}", features.functions_missing.join(", ")));
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(preemption: Preemption) -> Features {
        Features { preemption, functions_missing: Vec::new(), fields_missing: Vec::new() }
    }

    #[test]
    fn fentry_comes_first_only_where_nothing_can_preempt() {
        use Mode::{Fentry, Kprobe, Tracepoint};
        let order = |preemption| plan(CaptureMode::Auto, &features(preemption)).modes;
        assert_eq!(order(Preemption::No), [Fentry, Kprobe, Tracepoint]);
        assert_eq!(order(Preemption::Yes), [Kprobe, Fentry, Tracepoint]);
        assert_eq!(order(Preemption::Unknown), [Kprobe, Fentry, Tracepoint]);
    }

    #[test]
    fn a_mode_that_is_asked_for_is_the_only_one() {
        assert_eq!(plan(CaptureMode::Fentry, &features(Preemption::Yes)).modes, [Mode::Fentry]);
        assert_eq!(plan(CaptureMode::Off, &features(Preemption::No)).modes, []);
    }

    #[test]
    fn what_is_missing_disables_only_what_needs_it() {
        let mut lacking = features(Preemption::No);
        lacking.functions_missing = vec!["unix_stream_read_actor"];
        let chosen = plan(CaptureMode::Auto, &lacking);
        assert_eq!(chosen.modes, [Mode::Kprobe, Mode::Tracepoint]);
        assert!(chosen.reasons.iter().any(|reason| reason.contains("unix_stream_read_actor")));
        lacking.fields_missing = vec!["msg_iter"];
        assert_eq!(plan(CaptureMode::Auto, &lacking).modes, [Mode::Tracepoint]);
        lacking.fields_missing = vec!["peer"];
        assert_eq!(plan(CaptureMode::Auto, &lacking).modes, []);
    }
}
