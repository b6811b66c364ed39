//! The runtime's processes: attaching the programs that follow them, and seeding those that are older.
//!
//! The programs know a runtime when it serves its first CRI call after the attach, and what it starts from then on. What it
//! started before, above all the shims, is looked for once, in `/proc`.

use std::os::unix::fs::MetadataExt as _;

use aya::maps::{HashMap, MapError};
use aya::{Btf, Ebpf, Pod};
use spanlet_abi::task::{RUNTIME, Task};

use super::attach::{self, AttachError, Entry, Hook, Setup, entry, twin};
use super::old;

/// Why execs are not seen, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum ExecsError {
    #[error("execs are not seen: the kernel's types lack {0}")]
    Fields(String),
    #[error("execs are not seen")]
    Attach(#[source] AttachError),
    #[error("execs of shims older than the agent are not seen: it does not run in the initial pid namespace (hostPID)")]
    OtherPidNamespace,
    #[error(
        "execs of shims older than the agent are not seen: listing sockets needs the kernel option or module UNIX_DIAG"
    )]
    Listeners(#[source] std::io::Error),
    #[error("execs of shims older than the agent are not seen: setting up map TASKS")]
    Seed(#[source] MapError),
}

/// `PROC_PID_INIT_INO` (linux/proc_ns.h): inode number of the initial pid namespace, whose ids the programs go by.
const INITIAL_PID_INUM: u32 = 0xEFFF_FFFC;
/// Where the runtime's socket is opened by init, it is no runtime for that.
const INIT: u32 = 1;
/// `BPF_NOEXIST` (linux/bpf.h): a process that is followed already is left as it is.
const NO_EXIST: u64 = 1;

/// What makes a process followed comes last.
pub(super) const PROGRAMS: &[Entry] = &[
    entry("process_exit", Hook::Tracepoint("sched_process_exit")),
    twin("process_exec", "process_exec_bounded", Hook::Tracepoint("sched_process_exec")),
    entry("process_fork", Hook::Tracepoint("sched_process_fork")),
];

/// Attaches the programs and seeds them; says which were attached, and what is not seen.
pub fn attach(ebpf: &mut Ebpf, setup: &Setup<'_>) -> (Vec<&'static str>, Option<ExecsError>) {
    match load(ebpf, setup.missing_for_execs, setup.btf) {
        Ok(names) => (names, seed(ebpf, setup).err()),
        Err(error) => (Vec::new(), Some(error)),
    }
}

fn load(ebpf: &mut Ebpf, missing: &[&'static str], btf: &Btf) -> Result<Vec<&'static str>, ExecsError> {
    if !missing.is_empty() {
        return Err(ExecsError::Fields(missing.join(", ")));
    }
    attach::load_and_link(ebpf, PROGRAMS.iter(), btf).map_err(ExecsError::Attach)
}

fn seed(ebpf: &mut Ebpf, setup: &Setup<'_>) -> Result<(), ExecsError> {
    if setup.identity.pid_inum != INITIAL_PID_INUM {
        return Err(ExecsError::OtherPidNamespace);
    }
    let listeners = old::cri_listeners(setup.paths).map_err(ExecsError::Listeners)?;
    let runtimes = old::holders(listeners);
    if runtimes.is_empty() {
        return Ok(());
    }
    let map = ebpf.map_mut("TASKS").ok_or(ExecsError::Attach(AttachError::Absent("TASKS")))?;
    let mut tasks: HashMap<_, u32, SeededTask> = HashMap::try_from(map).map_err(ExecsError::Seed)?;
    for (id, task) in older_tasks(&runtimes, &Process::all()) {
        match tasks.insert(id, SeededTask(task), NO_EXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
            inserted => inserted.map_err(ExecsError::Seed)?,
        }
    }
    Ok(())
}

/// A [`Task`] as a map's value.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
struct SeededTask(Task);

// SAFETY: plain data without padding (asserted by its size in spanlet-abi).
unsafe impl Pod for SeededTask {}

/// What `/proc` says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    id: u32,
    parent: u32,
    /// As [`Task::born`].
    born: u64,
    pid_inum: u32,
    mnt_inum: u32,
    /// The control group of the systemd service that it is in.
    service: Option<String>,
}

/// The runtimes, and what is left of what they started before: shims outlive the process that started them, so parents do not
/// tell. A service's control group holds what the service has started and nothing else; so a shim is a process in the
/// runtime's service and in its namespaces. Left out are those above the runtime: k3s starts its containerd within its own service.
/// A runtime that is no service (started by hand) is followed without what it started before.
fn older_tasks(runtimes: &[u32], processes: &[Process]) -> Vec<(u32, Task)> {
    let mut tasks = Vec::new();
    for runtime in processes.iter().filter(|process| runtimes.contains(&process.id) && process.id != INIT) {
        let above = ancestors(runtime, processes);
        let started = processes.iter().filter(|process| {
            process.service.is_some()
                && process.service == runtime.service
                && (process.pid_inum, process.mnt_inum) == (runtime.pid_inum, runtime.mnt_inum)
                && !above.contains(&process.id)
                && process.id != INIT
                && process.id != runtime.id
        });
        tasks.extend(std::iter::once(runtime).chain(started).map(|process| (process.id, process.to_task())));
    }
    tasks
}

fn ancestors(of: &Process, processes: &[Process]) -> Vec<u32> {
    let mut above: Vec<u32> = Vec::new();
    let mut parent = of.parent;
    while let Some(process) = processes.iter().find(|process| process.id == parent && !above.contains(&process.id)) {
        above.push(process.id);
        parent = process.parent;
    }
    above
}

// === impl Process ===

impl Process {
    /// All that run now. One that ends meanwhile is left out.
    fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries.flatten().filter_map(|entry| Self::read(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    fn read(id: u32) -> Option<Self> {
        let (parent, born) = parent_and_start(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?;
        let namespace = |kind| Some(std::fs::metadata(format!("/proc/{id}/ns/{kind}")).ok()?.ino() as u32);
        let groups = std::fs::read_to_string(format!("/proc/{id}/cgroup")).ok()?;
        let service = service_of(&groups).map(str::to_owned);
        Some(Self { id, parent, born, pid_inum: namespace("pid")?, mnt_inum: namespace("mnt")?, service })
    }

    const fn to_task(&self) -> Task {
        let Self { id, born, pid_inum, mnt_inum, .. } = *self;
        Task { born, pid_inum, mnt_inum, process: id, parent: 0, state: RUNTIME, zero: 0 }
    }
}

/// Fields `ppid` and `starttime` of `/proc/PID/stat` (proc(5)). The name before them may hold spaces and parentheses.
fn parent_and_start(stat: &str) -> Option<(u32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((parent, start))
}

/// The control group that systemd made for a service, whether in its own hierarchy or in the unified one.
fn service_of(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        (matches!(controllers, "" | "name=systemd") && path.ends_with(".service")).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "/system.slice/containerd.service";

    fn process(id: u32, parent: u32, service: Option<&str>) -> Process {
        Process { id, parent, born: u64::from(id) * 10, pid_inum: 1, mnt_inum: 2, service: service.map(str::to_owned) }
    }

    fn ids(runtimes: &[u32], processes: &[Process]) -> Vec<u32> {
        older_tasks(runtimes, processes).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn shims_are_found_in_the_runtimes_service_and_namespaces() {
        let mut elsewhere = process(30, 1, Some(SERVICE));
        elsewhere.mnt_inum = 3;
        let processes = [
            process(1, 0, None),
            process(10, 1, Some(SERVICE)),
            process(20, 1, Some(SERVICE)), // a shim, whose parent is gone
            process(21, 20, Some("/kubepods/pod1")),
            elsewhere,
            process(40, 1, Some("/system.slice/kubelet.service")),
        ];
        let tasks = older_tasks(&[10], &processes);
        assert_eq!(tasks.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [10, 20]);
        let shim = Task { born: 200, pid_inum: 1, mnt_inum: 2, process: 20, parent: 0, state: RUNTIME, zero: 0 };
        assert_eq!(tasks[1].1, shim);
    }

    #[test]
    fn a_runtime_that_is_no_service_is_followed_alone_and_init_never() {
        let processes = [process(1, 0, None), process(10, 1, None), process(11, 1, None)];
        assert_eq!(ids(&[10], &processes), [10]);
        assert!(ids(&[1], &processes).is_empty());
    }

    #[test]
    fn what_starts_the_runtime_within_its_service_is_left_out() {
        let k3s = Some("/system.slice/k3s.service");
        let processes = [process(1, 0, None), process(5, 1, k3s), process(6, 5, k3s), process(7, 1, k3s)];
        assert_eq!(ids(&[6], &processes), [6, 7]);
    }

    #[test]
    fn proc_is_read_as_it_is_written() {
        let stat = "42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 1";
        assert_eq!(parent_and_start(stat), Some((7, 123_456)));
        assert_eq!(parent_and_start("42 (a) S"), None);
        let this = Process::read(std::process::id()).unwrap();
        assert_eq!(this.parent, std::os::unix::process::parent_id());
        assert!(Process::all().contains(&this));
    }

    #[test]
    fn only_a_services_own_control_group_is_one() {
        let cases = [
            ("0::/system.slice/containerd.service\n", Some(SERVICE)),
            ("3:cpu:/x.service\n1:name=systemd:/system.slice/containerd.service\n0::/\n", Some(SERVICE)),
            ("0::/system.slice/containerd.service/kubepods/pod1\n", None),
            ("0::/user.slice/session-1.scope\n", None),
            ("", None),
        ];
        for (groups, expected) in cases {
            assert_eq!(service_of(groups), expected, "{groups}");
        }
    }
}
