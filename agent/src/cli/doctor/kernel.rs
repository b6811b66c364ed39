//! The kernel and what this process may do with it.

use std::path::Path;

use super::Finding;
use crate::capture::layout::KERNEL_BTF;

/// What loading and attaching takes (linux/capability.h), by its bit.
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (39, "CAP_BPF", "loading programs"),
    (38, "CAP_PERFMON", "attaching them, and reading kernel memory in them"),
    (12, "CAP_NET_ADMIN", "listing the unix sockets of other namespaces"),
    (19, "CAP_SYS_PTRACE", "telling which processes hold connections older than the agent"),
];
/// It stands for CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

pub(super) fn findings() -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = std::fs::read_to_string("/proc/sys/kernel/version").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    vec![
        Finding::ok("kernel", format!("{} {}", release.trim(), version.trim())),
        types(Path::new(KERNEL_BTF).exists()),
        capabilities(effective(&status).unwrap_or(0)),
    ]
}

fn types(are_there: bool) -> Finding {
    if are_there {
        Finding::ok("kernel types", KERNEL_BTF)
    } else {
        let mend = "a kernel built with CONFIG_DEBUG_INFO_BTF=y; every current distribution's is";
        Finding::problem("kernel types", format!("{KERNEL_BTF} is not there"), mend)
    }
}

/// The bits of `CapEff` in `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn capabilities(effective: u64) -> Finding {
    let has = |bit: u32| effective & (1 << bit) != 0 || (matches!(bit, 38 | 39) && effective & (1 << SYS_ADMIN) != 0);
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(bit, _, _)| !has(*bit))
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        Finding::ok("capabilities", CAPABILITIES.map(|(_, name, _)| name).join(", "))
    } else {
        let mend = "run as root, or add them to the container's securityContext.capabilities";
        Finding::problem("capabilities", format!("missing: {}", missing.join(", ")), mend)
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = (1 << 39) | (1 << 38) | (1 << 12) | (1 << 19);
        assert_eq!(capabilities(all).state, State::Ok);
        assert_eq!(capabilities((1 << SYS_ADMIN) | (1 << 12) | (1 << 19)).state, State::Ok);
        let finding = capabilities(all & !(1 << 38));
        assert_eq!(finding.state, State::Problem);
        assert!(finding.found.contains("CAP_PERFMON (attaching"), "{}", finding.found);
        assert!(!finding.found.contains("CAP_BPF"), "{}", finding.found);
    }

    #[test]
    fn effective_capabilities_are_read_from_the_status_file() {
        assert_eq!(effective("CapPrm:\t1\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tspanlet\n"), None);
    }
}
