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
    /// Tracepoints of sockets that the kernel does not have, or not for all that is sent (before 6.5).
    pub tracepoints_missing: Vec<&'static str>,
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
/// Fields that only tracepoint mode needs, whichever its tracepoints are.
const OF_DESCRIPTORS: [&str; 7] = ["files", "fdt", "max_fds", "fd", "private_data", "orig_ax", "r10"];
/// Fields that only tracepoints of sockets need.
const OF_SOCKETS: [&str; 2] = ["__sk_common.skc_state", "sk_shutdown"];

/// Chooses by what is there; a mode that was asked for is the only one tried.
pub fn plan(asked: CaptureMode, features: &Features) -> Plan {
    let mut reasons = Vec::new();
    let modes = match asked {
        CaptureMode::Off => {
            reasons.push("capture.mode is off".to_owned());
            Vec::new()
        }
        CaptureMode::Fentry => forced(&[Mode::Fentry], &mut reasons),
        CaptureMode::Kprobe => forced(&[Mode::Kprobe], &mut reasons),
        CaptureMode::Tracepoint => forced(&[Mode::Tracepoint, Mode::SystemCalls], &mut reasons),
        CaptureMode::Auto => automatic(features, &mut reasons),
    };
    let modes = modes.into_iter().filter(|mode| usable(*mode, features, &mut reasons)).collect();
    Plan { modes, reasons }
}

fn forced(modes: &[Mode], reasons: &mut Vec<String>) -> Vec<Mode> {
    reasons.extend(modes.first().map(|mode| format!("capture.mode asks for {}", mode.label())));
    modes.to_vec()
}

fn automatic(features: &Features, reasons: &mut Vec<String>) -> Vec<Mode> {
    if features.preemption == Preemption::No {
        reasons.push("the kernel cannot preempt inside a program: fentry is exact and cheapest".to_owned());
        return vec![Mode::Fentry, Mode::Kprobe, Mode::Tracepoint, Mode::SystemCalls];
    }
    reasons.push(match features.preemption {
        Preemption::Yes => "the kernel can preempt inside a program, fentry would miss events: kprobe first".to_owned(),
        _ => "whether the kernel can preempt inside a program is not known: kprobe first".to_owned(),
    });
    vec![Mode::Kprobe, Mode::Tracepoint, Mode::Fentry, Mode::SystemCalls]
}

fn usable(mode: Mode, features: &Features, reasons: &mut Vec<String>) -> bool {
    let needless: &[&[&str]] = match mode {
        Mode::Fentry | Mode::Kprobe => &[&OF_DESCRIPTORS, &OF_SOCKETS],
        Mode::Tracepoint => &[&OF_MESSAGES],
        Mode::SystemCalls => &[&OF_MESSAGES, &OF_SOCKETS],
    };
    let mut missing = features.fields_missing.clone();
    missing.retain(|field| !needless.iter().any(|fields| fields.contains(field)));
    match mode {
        Mode::Fentry => missing.extend(&features.functions_missing),
        Mode::Tracepoint => missing.extend(&features.tracepoints_missing),
        Mode::Kprobe | Mode::SystemCalls => {}
    }
    if missing.is_empty() {
        return true;
    }
    reasons.push(format!("{}: the kernel's types lack {}", mode.name(), missing.join(", ")));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(preemption: Preemption) -> Features {
        Features {
            preemption,
            functions_missing: Vec::new(),
            tracepoints_missing: Vec::new(),
            fields_missing: Vec::new(),
        }
    }

    #[test]
    fn fentry_comes_first_only_where_nothing_can_preempt() {
        use Mode::{Fentry, Kprobe, SystemCalls, Tracepoint};
        let order = |preemption| plan(CaptureMode::Auto, &features(preemption)).modes;
        assert_eq!(order(Preemption::No), [Fentry, Kprobe, Tracepoint, SystemCalls]);
        assert_eq!(order(Preemption::Yes), [Kprobe, Tracepoint, Fentry, SystemCalls]);
        assert_eq!(order(Preemption::Unknown), [Kprobe, Tracepoint, Fentry, SystemCalls]);
    }

    #[test]
    fn a_mode_that_is_asked_for_is_the_only_one() {
        let modes = |asked| plan(asked, &features(Preemption::Yes)).modes;
        assert_eq!(modes(CaptureMode::Fentry), [Mode::Fentry]);
        assert_eq!(modes(CaptureMode::Kprobe), [Mode::Kprobe]);
        assert_eq!(modes(CaptureMode::Tracepoint), [Mode::Tracepoint, Mode::SystemCalls]);
        assert_eq!(modes(CaptureMode::Off), []);
    }

    #[test]
    fn what_is_missing_disables_only_what_needs_it() {
        use Mode::{Fentry, Kprobe, SystemCalls, Tracepoint};
        let fields: [(&str, &[Mode]); 4] = [
            ("msg_iter", &[Tracepoint, SystemCalls]),
            ("fdt", &[Fentry, Kprobe]),
            ("sk_shutdown", &[Fentry, Kprobe, SystemCalls]),
            ("peer", &[]),
        ];
        for (field, expected) in fields {
            let lacking = Features { fields_missing: vec![field], ..features(Preemption::No) };
            let chosen = plan(CaptureMode::Auto, &lacking);
            assert_eq!(chosen.modes, expected, "{field}");
            assert!(chosen.reasons.iter().any(|reason| reason.contains(field)), "{:?}", chosen.reasons);
        }
    }

    #[test]
    fn a_hook_that_is_missing_disables_only_its_mode() {
        let without_function =
            Features { functions_missing: vec!["unix_stream_read_actor"], ..features(Preemption::No) };
        let chosen = plan(CaptureMode::Auto, &without_function);
        assert_eq!(chosen.modes, [Mode::Kprobe, Mode::Tracepoint, Mode::SystemCalls]);
        assert!(chosen.reasons.contains(&"fentry: the kernel's types lack unix_stream_read_actor".to_owned()));
        let without_tracepoint = Features { tracepoints_missing: vec!["sock_send_length"], ..features(Preemption::No) };
        let chosen = plan(CaptureMode::Tracepoint, &without_tracepoint);
        assert_eq!(chosen.modes, [Mode::SystemCalls]);
        assert!(chosen.reasons.iter().any(|reason| reason.contains("sock_send_length")), "{:?}", chosen.reasons);
    }
}
