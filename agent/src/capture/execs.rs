//! From ring records to the runtime's processes: each is told when it has executed a program, and when it ends.

use std::collections::HashMap;

use spanlet_abi::event::{Head, Kind, exit};

use super::clock::Clock;
use super::gaps::Gaps;
use super::limits::MAX_EXECS;
use super::record::Record;
use crate::exec::Exec;

/// The processes that run, by their id in the initial pid namespace.
#[derive(Debug, Default)]
pub struct Execs {
    running: HashMap<u64, Exec>,
    gaps: Gaps,
}

impl Execs {
    /// Takes in one record of kind `Exec` or `Exit`.
    pub fn record(&mut self, record: &Record<'_>, clock: Clock, tell: &mut dyn FnMut(Exec)) {
        match record.kind {
            Kind::Exec => tell(self.executed(record, clock).clone()),
            Kind::Exit => match self.running.remove(&record.head.connection) {
                Some(exec) => tell(ended(exec, &record.head, clock)),
                None => self.gaps.strays += 1, // it was forgotten
            },
            _ => {}
        }
    }

    /// How many processes run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// What was given up so far.
    pub fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// The programs are detached: nothing will be told of the processes that run.
    pub fn forget_all(&mut self) {
        self.running.clear();
    }

    /// A process that executes another program goes on as that one.
    fn executed(&mut self, record: &Record<'_>, clock: Clock) -> &Exec {
        let id = record.head.connection;
        let (argv, cni) = given(record);
        let now_ns = clock.unix_ns(record.head.time_ns);
        if !self.running.contains_key(&id) && self.running.len() == MAX_EXECS {
            self.evict();
        }
        let exec = self.running.entry(id).or_insert_with(|| Exec {
            pid: record.head.process,
            parent_pid: record.head.stream,
            argv: Vec::new(),
            cni: Vec::new(),
            started_ns: now_ns,
            ended_ns: None,
            exit_status: None,
            cpu_ns: None,
            owner: None,
        });
        (exec.argv, exec.cni) = (argv, cni);
        exec
    }

    /// The oldest goes: its end was lost, or is far away.
    fn evict(&mut self) {
        if let Some(oldest) = self.running.iter().min_by_key(|(_, exec)| exec.started_ns).map(|(id, _)| *id) {
            self.running.remove(&oldest);
            self.gaps.execs_forgotten += 1;
        }
    }
}

fn ended(mut exec: Exec, head: &Head, clock: Clock) -> Exec {
    exec.ended_ns = Some(clock.unix_ns(head.time_ns).max(exec.started_ns)); // the wall clock may have been set back since
    if head.flags & exit::LEFT == 0 {
        exec.exit_status = Some(head.note as i32);
        exec.cpu_ns = Some(head.offset);
    }
    exec
}

/// Arguments and `CNI_*` variables. Cut arguments are of use, a cut variable is not: half a name would be another pod's.
fn given(record: &Record<'_>) -> (Vec<String>, Vec<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (arguments, variables) = record.data.split_at((record.head.field as usize).min(record.data.len()));
    let argv = match arguments.strip_suffix(&[0]).unwrap_or(arguments) {
        [] => Vec::new(),
        arguments => arguments.split(|byte| *byte == 0).map(text).collect(),
    };
    let variables = variables.split_inclusive(|byte| *byte == 0).filter_map(|variable| variable.strip_suffix(&[0]));
    (argv, variables.filter(|variable| variable.starts_with(b"CNI_")).map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock::with_offset_ns(1_000);

    fn head(kind: Kind, id: u64, time_ns: u64) -> Head {
        Head { kind: kind as u16, connection: id, time_ns, process: id as u32 + 100, stream: 7, ..Head::default() }
    }

    /// Takes in an exec with these arguments and variables, or an exit with this status.
    fn take(execs: &mut Execs, kind: Kind, id: u64, time_ns: u64, data: (&[u8], &[u8])) -> Vec<Exec> {
        let mut head = head(kind, id, time_ns);
        head.field = data.0.len() as u32;
        let data = [data.0, data.1].concat();
        take_record(execs, &Record { kind, head, data: &data })
    }

    fn take_record(execs: &mut Execs, record: &Record<'_>) -> Vec<Exec> {
        let mut told = Vec::new();
        execs.record(record, CLOCK, &mut |exec| told.push(exec));
        told
    }

    #[test]
    fn a_process_is_told_at_its_start_and_at_its_end() {
        let mut execs = Execs::default();
        let given: (&[u8], &[u8]) = (b"/opt/cni/bin/bridge\0", b"CNI_COMMAND=ADD\0CNI_IFNAME=eth0\0");
        let started = take(&mut execs, Kind::Exec, 1, 5, given);
        assert_eq!((started[0].pid, started[0].parent_pid, started[0].started_ns), (101, 7, 1_005));
        assert_eq!(started[0].argv, ["/opt/cni/bin/bridge"]);
        assert_eq!(started[0].cni, ["CNI_COMMAND=ADD", "CNI_IFNAME=eth0"]);
        assert_eq!(started[0].ended_ns, None);
        let mut end = head(Kind::Exit, 1, 25);
        (end.note, end.offset) = (0x0100, 12);
        let ended = take_record(&mut execs, &Record { kind: Kind::Exit, head: end, data: &[] });
        let exec = Exec { ended_ns: Some(1_025), exit_status: Some(256), cpu_ns: Some(12), ..started[0].clone() };
        assert_eq!(ended, [exec]);
        assert_eq!(take_record(&mut execs, &Record { kind: Kind::Exit, head: end, data: &[] }), []);
        assert_eq!(execs.gaps().strays, 1);
    }

    #[test]
    fn a_process_that_executes_again_is_the_same_one() {
        let mut execs = Execs::default();
        take(&mut execs, Kind::Exec, 1, 5, (b"sh\0-c\0x\0", b""));
        let again = take(&mut execs, Kind::Exec, 1, 9, (b"runc\0\0init", b"CNI_A=1\0"));
        assert_eq!((again[0].started_ns, &again[0].cni), (1_005, &vec!["CNI_A=1".to_owned()]));
        assert_eq!(again[0].argv, ["runc", "", "init"]);
    }

    #[test]
    fn one_that_leaves_has_no_status() {
        let mut execs = Execs::default();
        take(&mut execs, Kind::Exec, 1, 5, (b"nsenter\0", b""));
        let left = Head { flags: exit::LEFT, ..head(Kind::Exit, 1, 8) };
        let told = take_record(&mut execs, &Record { kind: Kind::Exit, head: left, data: &[] });
        assert_eq!((told[0].ended_ns, told[0].exit_status, told[0].cpu_ns), (Some(1_008), None, None));
    }

    #[test]
    fn what_is_cut_or_no_cni_variable_is_dropped() {
        let mut execs = Execs::default();
        let told = take(&mut execs, Kind::Exec, 1, 5, (b"", b"CNI_A=1\0PATH=/bin\0CNI_B=2"));
        assert_eq!((&told[0].argv, &told[0].cni), (&vec![], &vec!["CNI_A=1".to_owned()]));
        let mut head = head(Kind::Exec, 2, 6);
        head.field = 99; // more than there is
        let told = take_record(&mut execs, &Record { kind: Kind::Exec, head, data: b"a" });
        assert_eq!(told[0].argv, ["a"]);
    }

    #[test]
    fn the_oldest_is_forgotten_when_too_many_run() {
        let mut execs = Execs::default();
        for id in 0..=MAX_EXECS as u64 {
            take(&mut execs, Kind::Exec, id, id, (b"a\0", b""));
        }
        assert_eq!((execs.running.len(), execs.gaps().execs_forgotten), (MAX_EXECS, 1));
        assert!(!execs.running.contains_key(&0));
    }
}
