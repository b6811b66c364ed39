//! Loading and attaching the kernel programs of one mode.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, RingBuf, Stack};
use aya::programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use spanlet_abi::counters::Program as Timed;
use spanlet_abi::event::{Kind, OLD_SERVER};
use spanlet_abi::layout::{ABSENT, FIELDS, Layout, SYSTEM_CALLS};
use spanlet_abi::limits::{HOLDER_SLOTS, MAX_ENDPOINTS, PATH_BYTES, WAKE_PART};

use super::Mode;
use super::cast;
use super::counters::CountersView;
use super::identity::Identity;
use super::old::{self, OldConnection};
use super::paths::WatchedPath;
use super::runs::RunsView;
use super::skipped;
use super::system_calls;
use super::tasks::{self, ExecsError};

/// The object that `cargo xtask build` makes.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/spanlet.o"));

/// A program that the kernel runs for sockets of the network, too, in interrupts, and skips there if it was just running: that is no
/// run for a unix socket.
const ALSO_IN_INTERRUPTS: &str = "tracepoint_ready";

/// The section of the programs' `OLD_LEFT`.
const OLD_LEFT: &str = ".data.old";

/// Why a mode could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("loading the kernel object")]
    Object(#[source] EbpfError),
    #[error("the kernel object has no {0}")]
    Absent(&'static str),
    #[error("loading program {name}")]
    Load { name: &'static str, source: ProgramError },
    #[error("attaching program {name}")]
    Attach { name: &'static str, source: ProgramError },
    #[error("setting up map {name}")]
    Map { name: &'static str, source: MapError },
    #[error("connections older than the agent are not seen: listing them needs the kernel option or module UNIX_DIAG")]
    Old(#[source] std::io::Error),
    #[error("mapping map {name}")]
    Mapping { name: &'static str, source: std::io::Error },
    #[error("counting this machine's CPUs ({file})")]
    Cpus { file: &'static str, source: std::io::Error },
}

/// Attached programs; they are detached when this is dropped.
pub struct Attached {
    pub mode: Mode,
    pub ring: RingBuf<MapData>,
    pub counters: CountersView,
    pub runs: RunsView,
    /// Program runs that the kernel skipped, as of the last [`Attached::has_lost_more`].
    pub skipped: u64,
    /// What of calls was lost, as of then.
    lost: u64,
    /// Why the programs read the kernel's memory by helpers though it lets programs cast, if they do.
    pub without_cast: Option<AttachError>,
    /// Why connections older than the agent are not followed, if they are not.
    pub without_old: Option<AttachError>,
    /// Why execs are not seen, or not all of them, if so.
    pub without_execs: Option<ExecsError>,
    ebpf: Ebpf,
    names: Vec<&'static str>,
}

/// What the programs must know before they are loaded.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The kernel's types, as the loader wants them: taken apart once for all modes that are tried.
    pub btf: &'a Btf,
    pub layout: &'a Layout,
    /// Number of the kernel's `bpf_rdonly_cast`.
    pub rdonly_cast: Option<u32>,
    /// Functions of the kernel that programs can be attached to.
    pub functions: &'a [&'static str],
    /// Fields of the kernel's structures that execs need and that were not found.
    pub missing_for_execs: &'a [&'static str],
    pub identity: Identity,
    pub paths: &'a [WatchedPath],
    pub ring_bytes: u32,
}

/// How a program is attached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    Tracepoint(&'static str),
    Entry(&'static str),
    Exit(&'static str),
    Probe(&'static str),
}

/// One program of a mode.
pub(super) struct Entry {
    name: &'static str,
    /// The same for kernels without `bpf_loop` (before 5.17) or typed access to the current task (before 5.11).
    older: Option<&'static str>,
    hook: Hook,
    /// Newer kernels do not have the function, nor need it.
    may_be_absent: bool,
}

pub(super) const fn entry(name: &'static str, hook: Hook) -> Entry {
    Entry { name, older: None, hook, may_be_absent: false }
}

pub(super) const fn twin(name: &'static str, older: &'static str, hook: Hook) -> Entry {
    Entry { older: Some(older), ..entry(name, hook) }
}

const fn if_there(name: &'static str, hook: Hook) -> Entry {
    Entry { may_be_absent: true, ..entry(name, hook) }
}

/// The programs of a mode. What makes a connection known comes last: by then all that follows it is in place.
const fn programs(mode: Mode) -> &'static [Entry] {
    const SYSTEM_CALLS: &[Entry] = &[
        twin("sys_exit", "sys_exit_bounded", Hook::Tracepoint("sys_exit")),
        twin("sys_enter", "sys_enter_untyped", Hook::Tracepoint("sys_enter")),
    ];
    const TRACEPOINT: &[Entry] = &[
        entry("tracepoint_received", Hook::Tracepoint("sock_recv_length")),
        entry("tracepoint_sent", Hook::Tracepoint("sock_send_length")),
        entry("tracepoint_ready", Hook::Tracepoint("sk_data_ready")),
    ];
    const FENTRY: &[Entry] = &[
        entry("fentry_release", Hook::Entry("unix_release_sock")),
        entry("fentry_read", Hook::Entry("unix_stream_read_actor")),
        twin("fexit_send", "fexit_send_bounded", Hook::Exit("unix_stream_sendmsg")),
        if_there("fexit_send_page", Hook::Exit("unix_stream_sendpage")),
        if_there("fentry_send_page", Hook::Entry("unix_stream_sendpage")),
        entry("fentry_send", Hook::Entry("unix_stream_sendmsg")),
        entry("fexit_connect", Hook::Exit("unix_stream_connect")),
        entry("fentry_connect", Hook::Entry("unix_stream_connect")),
    ];
    const KPROBE: &[Entry] = &[
        entry("kprobe_release", Hook::Probe("unix_release_sock")),
        entry("kprobe_read", Hook::Probe("unix_stream_read_actor")),
        twin("kprobe_readable", "kprobe_readable_bounded", Hook::Probe("sock_def_readable")),
        if_there("kprobe_send_page", Hook::Probe("unix_stream_sendpage")),
        entry("kprobe_send", Hook::Probe("unix_stream_sendmsg")),
        entry("kprobe_connect", Hook::Probe("unix_stream_connect")),
    ];
    match mode {
        Mode::Tracepoint => TRACEPOINT,
        Mode::SystemCalls => SYSTEM_CALLS,
        Mode::Fentry => FENTRY,
        Mode::Kprobe => KPROBE,
    }
}

/// Loads and attaches the programs of `mode`.
///
/// A kernel may have the function that casts and yet let no program call it, as one whose JIT compiler is off: then they do without.
pub fn attach(mode: Mode, setup: &Setup<'_>) -> Result<Attached, AttachError> {
    let Some(function) = setup.rdonly_cast else { return attach_object(mode, setup, setup.layout, OBJECT) };
    let refusal = match attach_object(mode, setup, setup.layout, &cast::with_function(OBJECT, function)) {
        Err(refusal @ AttachError::Load { .. }) => refusal,
        attached => return attached,
    };
    let layout = Layout { type_of_word: ABSENT, ..*setup.layout };
    let mut attached = attach_object(mode, setup, &layout, OBJECT)?;
    attached.without_cast = Some(refusal);
    Ok(attached)
}

fn attach_object(mode: Mode, setup: &Setup<'_>, layout: &Layout, object: &[u8]) -> Result<Attached, AttachError> {
    let btf = setup.btf;
    let layout: [u32; FIELDS] = layout.fields().map(|(_, value)| value);
    let cpus = aya::util::nr_cpus().map_err(|(file, source)| AttachError::Cpus { file, source })? as u32;
    let identity =
        [setup.identity.process, setup.identity.net_inum, setup.identity.pid_inum, cpus, setup.ring_bytes / WAKE_PART];
    let actions: [u8; SYSTEM_CALLS] = system_calls::actions();
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .btf(Some(btf))
        .override_global("LAYOUT", &layout[..], true)
        .override_global("AGENT", &identity[..], true)
        .override_global("ACTIONS", &actions[..], true)
        .map_max_entries("EVENTS", setup.ring_bytes)
        .map_max_entries("RUNS", Timed::COUNT as u32 * cpus)
        .load(object)
        .map_err(AttachError::Object)?;
    watch(&mut ebpf, setup.paths)?;
    free_places(&mut ebpf)?;
    let mut names = load_and_link(&mut ebpf, programs(mode).iter().filter(|entry| entry.is_for(setup.functions)), btf)?;
    let (of_execs, without_execs) = tasks::attach(&mut ebpf, setup);
    names.extend(of_execs);
    let mapping = |name| move |source| AttachError::Mapping { name, source };
    let counters = CountersView::of(&take(&mut ebpf, "COUNTERS")?).map_err(mapping("COUNTERS"))?;
    let runs = RunsView::of(&take(&mut ebpf, "RUNS")?, cpus).map_err(mapping("RUNS"))?;
    let without_old = match old::connections(setup.paths) {
        Ok(connections) => {
            seed(&mut ebpf, &connections)?;
            None
        }
        Err(error) => Some(AttachError::Old(error)),
    };
    let ring = take(&mut ebpf, "EVENTS")?;
    let ring = RingBuf::try_from(ring).map_err(|source| AttachError::Map { name: "EVENTS", source })?;
    Ok(Attached {
        mode,
        ring,
        counters,
        runs,
        skipped: 0,
        lost: 0,
        without_cast: None,
        without_old,
        without_execs,
        ebpf,
        names,
    })
}

/// Loads all of these programs, then attaches them in order; says which of each and its twin.
pub(super) fn load_and_link<'a>(
    ebpf: &mut Ebpf,
    entries: impl Iterator<Item = &'a Entry>,
    btf: &Btf,
) -> Result<Vec<&'static str>, AttachError> {
    let mut loaded = Vec::new();
    for entry in entries {
        loaded.push((load(ebpf, entry, btf)?, entry.hook));
    }
    for (name, hook) in &loaded {
        let program = ebpf.program_mut(name).ok_or(AttachError::Absent(name))?;
        link(program, *hook).map_err(|source| AttachError::Attach { name, source })?;
    }
    Ok(loaded.into_iter().map(|(name, _)| name).collect())
}

/// Fills the trie of watched paths.
fn watch(ebpf: &mut Ebpf, paths: &[WatchedPath]) -> Result<(), AttachError> {
    let error = |source| AttachError::Map { name: "PATHS", source };
    let map = ebpf.map_mut("PATHS").ok_or(AttachError::Absent("PATHS"))?;
    let mut trie: LpmTrie<_, [u8; PATH_BYTES], u32> = LpmTrie::try_from(map).map_err(error)?;
    for path in paths {
        trie.insert(&Key::new(path.prefix_bits, path.bytes), path.kind as u32, 0).map_err(error)?;
    }
    Ok(())
}

/// Says that every place for an endpoint is free.
fn free_places(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    let error = |source| AttachError::Map { name: "FREE", source };
    let mut free: Stack<_, u32> =
        Stack::try_from(ebpf.map_mut("FREE").ok_or(AttachError::Absent("FREE"))?).map_err(error)?;
    (0..MAX_ENDPOINTS).rev().try_for_each(|place| free.push(place, 0)).map_err(error)
}

/// Loads a program, or its twin where the kernel refuses it; says which.
fn load(ebpf: &mut Ebpf, entry: &Entry, btf: &Btf) -> Result<&'static str, AttachError> {
    let first = load_one(ebpf, entry.name, entry.hook, btf);
    match (first, entry.older) {
        (Err(AttachError::Load { .. }), Some(older)) => load_one(ebpf, older, entry.hook, btf),
        (first, _) => first,
    }
}

fn load_one(ebpf: &mut Ebpf, name: &'static str, hook: Hook, btf: &Btf) -> Result<&'static str, AttachError> {
    let program = ebpf.program_mut(name).ok_or(AttachError::Absent(name))?;
    let loaded = program_load(program, hook, btf);
    loaded.map(|()| name).map_err(|source| AttachError::Load { name, source })
}

fn program_load(program: &mut Program, hook: Hook, btf: &Btf) -> Result<(), ProgramError> {
    match hook {
        Hook::Tracepoint(name) => <&mut BtfTracePoint>::try_from(program)?.load(name, btf),
        Hook::Entry(function) => <&mut FEntry>::try_from(program)?.load(function, btf),
        Hook::Exit(function) => <&mut FExit>::try_from(program)?.load(function, btf),
        Hook::Probe(_) => <&mut KProbe>::try_from(program)?.load(),
    }
}

fn link(program: &mut Program, hook: Hook) -> Result<(), ProgramError> {
    match hook {
        Hook::Tracepoint(_) => <&mut BtfTracePoint>::try_from(program)?.attach().map(drop),
        Hook::Entry(_) => <&mut FEntry>::try_from(program)?.attach().map(drop),
        Hook::Exit(_) => <&mut FExit>::try_from(program)?.attach().map(drop),
        Hook::Probe(function) => <&mut KProbe>::try_from(program)?.attach(function, 0).map(drop),
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, AttachError> {
    ebpf.take_map(name).ok_or(AttachError::Absent(name))
}

/// Gives the programs the connections that were there before them.
fn seed(ebpf: &mut Ebpf, connections: &[OldConnection]) -> Result<(), AttachError> {
    let error = |source| AttachError::Map { name: "OLD", source };
    let mut old: HashMap<_, u64, u32> =
        HashMap::try_from(ebpf.map_mut("OLD").ok_or(AttachError::Absent("OLD"))?).map_err(error)?;
    for connection in connections {
        old.insert(connection.client_inode, connection.kind as u32, 0).map_err(error)?;
        old.insert(connection.server_inode, connection.kind as u32 | OLD_SERVER, 0).map_err(error)?;
    }
    let error = |source| AttachError::Map { name: "HOLDERS", source };
    let mut holders: Array<_, u32> =
        Array::try_from(ebpf.map_mut("HOLDERS").ok_or(AttachError::Absent("HOLDERS"))?).map_err(error)?;
    let inodes = connections.iter().flat_map(|connection| [connection.client_inode, connection.server_inode]);
    for process in old::holders(inodes) {
        holders.set(process % HOLDER_SLOTS, 1, 0).map_err(error)?;
    }
    let error = |source| AttachError::Map { name: OLD_LEFT, source };
    let mut left: Array<_, u64> =
        Array::try_from(ebpf.map_mut(OLD_LEFT).ok_or(AttachError::Absent(OLD_LEFT))?).map_err(error)?;
    left.set(0, 2 * connections.len() as u64, 0).map_err(error)
}

// === impl Entry ===

impl Entry {
    /// Whether it is attached to a kernel with these functions. If one is wanting that must be there, the kernel says so itself.
    fn is_for(&self, functions: &[&str]) -> bool {
        let (Hook::Tracepoint(target) | Hook::Entry(target) | Hook::Exit(target) | Hook::Probe(target)) = self.hook;
        !self.may_be_absent || functions.contains(&target)
    }
}

// === impl Attached ===

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Attached {
    /// Whether anything of calls was lost since this was asked last. Asks, too, how often the kernel did not run a program because
    /// it was running on that CPU; told from 6.1 on.
    pub fn has_lost_more(&mut self) -> bool {
        let names = self.names.iter().filter(|name| **name != ALSO_IN_INTERRUPTS);
        let fds = names.filter_map(|name| self.ebpf.program(name)?.fd().ok());
        self.skipped = fds.map(|fd| skipped::runs_of(fd.as_fd().as_raw_fd())).sum();
        let of_calls = self.counters.lost().into_iter().filter(|lost| !matches!(lost.kind, Kind::Exec | Kind::Exit));
        let lost = of_calls.map(|lost| lost.count).sum::<u64>() + self.skipped;
        std::mem::replace(&mut self.lost, lost) != lost
    }

    /// Detaches the programs; what they have told stays in the ring, and what they have counted.
    pub fn detach(&mut self) {
        for name in &self.names {
            let unloaded = match self.ebpf.program_mut(name) {
                Some(Program::BtfTracePoint(program)) => program.unload(),
                Some(Program::FEntry(program)) => program.unload(),
                Some(Program::FExit(program)) => program.unload(),
                Some(Program::KProbe(program)) => program.unload(),
                _ => Ok(()), // there are no others
            };
            if let Err(error) = unloaded {
                tracing::warn!(%error, program = name, "a kernel program could not be detached");
            }
        }
    }

    /// Verified instructions of each program, where the kernel tells them (5.16 and newer).
    pub fn verified_instructions(&self) -> Vec<(&'static str, Option<u32>)> {
        let count = |name: &str| self.ebpf.program(name)?.info().ok()?.verified_instruction_count();
        self.names.iter().map(|name| (*name, count(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout;
    use super::*;

    const TABLE: &str = include_str!("../../../ebpf/README.md");

    /// Hooks in the table's column of a mode, as `fentry unix_release_sock`.
    fn documented(column: usize) -> Vec<String> {
        let hooks = TABLE.split("## Hooks").nth(1).expect("the chapter is there");
        let rows = hooks.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let cells = rows.skip(2).filter_map(|row| row.split('|').nth(column + 2));
        let mut hooks: Vec<String> = cells
            .flat_map(|cell| cell.split(','))
            .filter_map(|hook| {
                let mut words = hook.split_whitespace().map(|word| word.trim_matches('`'));
                let kind = words.next().filter(|kind| ["fentry", "fexit", "kprobe", "tp_btf"].contains(kind))?;
                Some(format!("{kind} {}", words.next()?))
            })
            .collect();
        hooks.sort();
        hooks.dedup();
        hooks
    }

    fn attached(mode: Mode) -> Vec<String> {
        let all = programs(mode).iter().chain(super::super::tasks::PROGRAMS);
        let mut hooks: Vec<String> = all
            .map(|entry| match entry.hook {
                Hook::Tracepoint(name) => format!("tp_btf {name}"),
                Hook::Entry(function) => format!("fentry {function}"),
                Hook::Exit(function) => format!("fexit {function}"),
                Hook::Probe(function) => format!("kprobe {function}"),
            })
            .collect();
        hooks.sort();
        hooks.dedup();
        hooks
    }

    /// Needs the rights of an agent, and a kernel with the function.
    #[test]
    fn where_programs_may_not_cast_they_do_without() {
        let report = layout::of_running_kernel().unwrap();
        let btf = Btf::from_sys_fs().unwrap();
        let mut setup = Setup {
            btf: &btf,
            layout: &report.layout,
            rdonly_cast: report.rdonly_cast,
            functions: &report.functions,
            missing_for_execs: &[],
            identity: Identity::of_this_process().unwrap(),
            paths: &[],
            ring_bytes: 1 << 16,
        };
        // SAFETY: no arguments; it cannot fail (geteuid(2)).
        if unsafe { libc::geteuid() } != 0 || setup.rdonly_cast.is_none() {
            return eprintln!("skipped: this test needs to be root, and a kernel that casts");
        }
        let attached = attach(Mode::Tracepoint, &setup).unwrap();
        assert!(attached.without_cast.is_none(), "{:?}", attached.without_cast);
        drop(attached);
        setup.rdonly_cast = Some(1); // no function
        let attached = attach(Mode::Tracepoint, &setup).unwrap();
        assert!(matches!(attached.without_cast, Some(AttachError::Load { .. })), "{:?}", attached.without_cast);
    }

    #[test]
    fn the_documented_hooks_are_those_that_are_attached() {
        for (column, mode) in [Mode::Fentry, Mode::Kprobe, Mode::Tracepoint, Mode::SystemCalls].into_iter().enumerate()
        {
            assert_eq!(documented(column), attached(mode), "{mode:?}");
        }
    }
}
