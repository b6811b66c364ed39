//! What a container runtime starts on the host: followed from fork to fork, told of from exec to exit. By tracepoints in every mode.
//!
//! ```text
//!  serves CRI calls ──► RUNTIME
//!                          │ fork                exec in the runtime's namespaces
//!                          └─────────► FORKED ───────────────────────────────────► TOLD ──exit──► forgotten
//!                                        │ exec in others: forgotten                 │ exec in others: forgotten
//! ```
//! "The runtime's namespaces" are its own pid and mount namespaces, so a container's processes are left out from their first exec
//! on, with everything that they start, hostPID pods too. A process that is not followed costs one look-up.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanlet_abi::counters::Program;
use spanlet_abi::event::{Head, Kind, Reason, exit};
use spanlet_abi::task::{BORN_UNIT_NS, FORKED, RUNTIME, TOLD, Task};

use crate::connection::{global_process, now_ns};
use crate::cost;
use crate::emit;
use crate::given;
use crate::kernel::{current_task, field, process_in_agent_namespace, read};
use crate::maps::{TASKS, layout, load, store};

/// Init: where the runtime's socket is opened by it, it is no runtime for that.
const INIT: u32 = 1;
/// `SIGNAL_GROUP_EXIT` (linux/sched/signal.h)
const GROUP_EXIT: u32 = 4;

/// match-proto: `void sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(context: BtfTracePointContext) -> i32 {
    cost::of(Program::Fork, |_| forks(context.arg::<u64>(1)));
    0
}

/// match-proto: `void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_context: BtfTracePointContext) -> i32 {
    cost::of(Program::Exec, |_| executes::<true>());
    0
}

/// The same for kernels without `bpf_loop`.
///
/// match-proto: `void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec_bounded(_context: BtfTracePointContext) -> i32 {
    cost::of(Program::Exec, |_| executes::<false>());
    0
}

/// match-proto: `void sched_process_exit(struct task_struct *p)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_context: BtfTracePointContext) -> i32 {
    cost::of(Program::Exit, |_| exits());
    0
}

/// The current process serves CRI calls: what it starts is followed from now on. `process` is its id for the agent.
#[inline(never)]
pub fn serves_cri(process: u32) {
    let id = global_process();
    if id == INIT || followed(id).is_some_and(|task| state(task) == RUNTIME) {
        return;
    }
    let Some(leader) = leader() else { return };
    let Some(born) = born(leader) else { return };
    let Some([pid_inum, mnt_inum]) = namespaces(leader) else { return };
    let task = Task { born, pid_inum, mnt_inum, process, parent: 0, state: RUNTIME, zero: 0 };
    follow(id, &task);
}

/// The current process forks `child`, a process or a thread.
#[inline(always)]
fn forks(child: u64) {
    let id = global_process();
    let Some(parent) = followed(id) else { return };
    let Some(child_id) = field::<u32>(child, layout!(task_tgid)) else { return };
    if child_id == id {
        return;
    }
    let Some(born) = born(child) else { return };
    // SAFETY: points into the map.
    let task = unsafe {
        let told = load!(parent, process);
        Task {
            born,
            pid_inum: load!(parent, pid_inum),
            mnt_inum: load!(parent, mnt_inum),
            process: 0,
            parent: if told != 0 { told } else { load!(parent, parent) },
            state: FORKED,
            zero: 0,
        }
    };
    follow(child_id, &task);
}

/// The current process has executed a program: its new memory is in place.
#[inline(always)]
fn executes<const LOOP: bool>() {
    let id = global_process();
    let Some(task) = followed(id) else { return };
    if state(task) == RUNTIME {
        return;
    }
    // SAFETY: points into the map.
    let runtimes = unsafe { [load!(task, pid_inum), load!(task, mnt_inum)] };
    if leader().and_then(namespaces) != Some(runtimes) {
        if state(task) == TOLD {
            tell_end(id, task, exit::LEFT, 0, 0);
        }
        let _ = TASKS.remove(&id);
        return;
    }
    let Some(given) = given::read::<LOOP>() else {
        emit::seen(Kind::Exec as u16);
        emit::lost(Kind::Exec as u16, Reason::ReadFault);
        return;
    };
    let process = process_in_agent_namespace();
    // SAFETY: both point into their maps.
    unsafe {
        let head = &raw mut (*given).head;
        store!(head, kind, Kind::Exec as u16);
        store!(head, connection, id as u64);
        store!(head, time_ns, now_ns());
        store!(head, stream, load!(task, parent));
        store!(head, process, process);
        if emit::tell_given(given) {
            store!(task, process, process);
            store!(task, state, TOLD);
        }
    }
}

/// The current thread exits; told when it is its process's last, whose status then stands.
#[inline(always)]
fn exits() {
    let id = global_process();
    let Some(task) = followed(id) else { return };
    let thread = current_task();
    let Some(signal) = field::<u64>(thread, layout!(task_signal)) else { return };
    if field::<u32>(signal, layout!(signal_live)) != Some(0) {
        return;
    }
    if state(task) == TOLD {
        let leader = leader().unwrap_or(thread);
        let group = field::<u32>(signal, layout!(signal_flags)).unwrap_or(0) & GROUP_EXIT != 0;
        let status = if group {
            field::<u32>(signal, layout!(signal_group_exit_code))
        } else {
            field::<u32>(leader, layout!(task_exit_code))
        };
        // Threads that are gone are added up in `signal`; the leader stays until its parent has waited for it.
        let mut run_time_ns = field::<u64>(signal, layout!(signal_run_time)).unwrap_or(0);
        run_time_ns = run_time_ns.wrapping_add(field::<u64>(thread, layout!(task_run_time)).unwrap_or(0));
        if leader != thread {
            run_time_ns = run_time_ns.wrapping_add(field::<u64>(leader, layout!(task_run_time)).unwrap_or(0));
        }
        tell_end(id, task, 0, status.unwrap_or(0), run_time_ns);
    }
    let _ = TASKS.remove(&id);
}

/// Tells of the end once: of two threads that exit together, both may look like the last.
#[inline(always)]
fn tell_end(id: u32, task: *mut Task, flags: u8, status: u32, run_time_ns: u64) {
    // SAFETY: points into the map.
    let process = unsafe { load!(task, process) };
    if TASKS.remove(&id).is_err() {
        return;
    }
    let head = Head {
        kind: Kind::Exit as u16,
        flags,
        connection: id as u64,
        time_ns: now_ns(),
        offset: run_time_ns,
        process,
        note: status,
        ..Head::default()
    };
    emit::tell_head(&head);
}

#[inline(always)]
fn follow(id: u32, task: &Task) {
    if TASKS.insert(&id, task, 0).is_err() {
        emit::seen(Kind::Exec as u16);
        emit::lost(Kind::Exec as u16, Reason::MapFull);
    }
}

/// The current process, if it is followed. An entry that an earlier process of the same id left behind is removed.
#[inline(always)]
fn followed(id: u32) -> Option<*mut Task> {
    let task = TASKS.get_ptr_mut(&id)?;
    // SAFETY: points into the map.
    if leader().and_then(born) == Some(unsafe { load!(task, born) }) {
        return Some(task);
    }
    let _ = TASKS.remove(&id);
    None
}

#[inline(always)]
fn state(task: *mut Task) -> u32 {
    // SAFETY: points into the map.
    unsafe { load!(task, state) }
}

/// The first thread of the current process.
#[inline(always)]
fn leader() -> Option<u64> {
    field::<u64>(current_task(), layout!(task_group_leader))
}

/// When a process was forked, as [`Task::born`].
#[inline(always)]
fn born(leader: u64) -> Option<u64> {
    Some(field::<u64>(leader, layout!(task_start_boottime))? / BORN_UNIT_NS)
}

/// Inode numbers of the pid and mount namespaces that a process is in.
#[inline(always)]
fn namespaces(leader: u64) -> Option<[u32; 2]> {
    let pid = field::<u64>(leader, layout!(task_thread_pid))?;
    let level = field::<u32>(pid, layout!(pid_level))?;
    // struct upid { int nr; struct pid_namespace *ns; }
    let upid = pid.wrapping_add(layout!(pid_numbers) as u64).wrapping_add(16 * level as u64);
    let pid_namespace = read::<u64>(upid.wrapping_add(8))?;
    let proxy = field::<u64>(leader, layout!(task_nsproxy))?;
    let mnt_namespace = field::<u64>(proxy, layout!(nsproxy_mnt))?;
    Some([
        field::<u32>(pid_namespace, layout!(pid_namespace_inum))?,
        field::<u32>(mnt_namespace, layout!(mnt_namespace_inum))?,
    ])
}
