//! Whether the kernel can preempt a task inside a program, which decides between fentry and kprobes.
//!
//! `uname -v` says PREEMPT for kernels that always can, nothing for those that never do, and PREEMPT_DYNAMIC for those that
//! choose at boot. These keep their choice in a variable, which a program reads: its address is in `/proc/kallsyms`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use aya::programs::BtfTracePoint;
use aya::{Btf, EbpfLoader};

use super::attach::OBJECT;
use super::counters::CountersView;
use super::ladder::Preemption;

/// `kernel/sched/core.c`
const VARIABLE: &str = "preempt_dynamic_mode";
const PROGRAM: &str = "read_variable";

/// How the running kernel preempts. `without` are the variable's values that mean it does not, as far as they are known.
pub fn of_running_kernel(btf: &Btf, without: &[u32]) -> Preemption {
    let version = std::fs::read_to_string("/proc/sys/kernel/version").unwrap_or_default();
    match of_version(&version) {
        Some(preemption) => preemption,
        None => address_of(VARIABLE).and_then(|address| read(address, btf)).map_or(Preemption::Unknown, |mode| {
            if without.is_empty() {
                Preemption::Unknown
            } else if without.contains(&mode) {
                Preemption::No
            } else {
                Preemption::Yes
            }
        }),
    }
}

/// What the version tells by itself; `None` if the kernel chose at boot.
fn of_version(version: &str) -> Option<Preemption> {
    if version.is_empty() {
        Some(Preemption::Unknown)
    } else if version.contains("PREEMPT_DYNAMIC") {
        None
    } else if version.contains("PREEMPT") {
        Some(Preemption::Yes)
    } else {
        Some(Preemption::No)
    }
}

/// `None` where the kernel has no such symbol or hides addresses (kernel.kptr_restrict).
fn address_of(symbol: &str) -> Option<u64> {
    let symbols = BufReader::new(File::open("/proc/kallsyms").ok()?);
    let line = symbols.lines().map_while(Result::ok).find(|line| line.split(' ').nth(2) == Some(symbol))?;
    u64::from_str_radix(line.split(' ').next()?, 16).ok().filter(|address| *address != 0)
}

/// Lets a program read the variable when this thread makes its next system call.
fn read(address: u64, btf: &Btf) -> Option<u32> {
    let mut loader = EbpfLoader::new();
    let mut ebpf = loader.btf(Some(btf)).override_global("VARIABLE", &address, true).load(OBJECT).ok()?;
    let program: &mut BtfTracePoint = ebpf.program_mut(PROGRAM)?.try_into().ok()?;
    program.load("sys_enter", btf).ok()?;
    program.attach().ok()?;
    std::thread::yield_now(); // a system call
    CountersView::of(ebpf.map("COUNTERS")?).ok()?.variable()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_version_tells_whether_it_preempts() {
        let table = [
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1", None),
            ("#1 SMP PREEMPT Mon", Some(Preemption::Yes)),
            ("#1 SMP Debian 5.10.1-1", Some(Preemption::No)),
            ("", Some(Preemption::Unknown)),
        ];
        for (version, expected) in table {
            assert_eq!(of_version(version), expected, "{version}");
        }
    }
}
