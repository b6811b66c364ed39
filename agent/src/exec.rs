//! One process that the runtime started on the host: shim, runc or crun, conmon, a CNI plugin or a child of one.

use crate::pod::Owner;

/// A process from its exec to its exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Process id in the agent's pid namespace.
    pub pid: u32,
    pub parent_pid: u32,
    /// Arguments, at most 512 bytes in all. Of the program executed last, if it executed several.
    pub argv: Vec<String>,
    /// The `CNI_*` variables of its environment, `NAME=value`.
    pub cni: Vec<String>,
    /// Unix nanoseconds: when it first executed a program.
    pub started_ns: u64,
    /// Unix nanoseconds; `None` while it runs. A process that executes a program in other namespaces than the runtime's ends there.
    pub ended_ns: Option<u64>,
    /// The exit status as `wait(2)` encodes it; `None` while it runs, and if it left the runtime's namespaces.
    pub exit_status: Option<i32>,
    /// Nanoseconds on a processor, of all its threads, at least: the kernel adds up a thread's time at its clock tick and when it
    /// leaves the processor, so up to a tick (1 to 10 ms) of the last thread's may be missing.
    pub cpu_ns: Option<u64>,
    /// Set by `enrich`.
    pub owner: Option<Owner>,
}

impl Exec {
    /// What the process does, in a few words: `cni bridge ADD`, `exec runc create`, `exec conmon`.
    pub fn name(&self) -> String {
        let program = self.argv.first().map_or("?", |path| path.rsplit('/').next().unwrap_or(path));
        if let Some(command) = self.cni.iter().find_map(|variable| variable.strip_prefix("CNI_COMMAND=")) {
            return format!("cni {program} {command}");
        }
        // Options come before the sub-command and some take a value, so it is looked for by name.
        match self.argv.iter().skip(1).find(|argument| SUBCOMMANDS.contains(&argument.as_str())) {
            Some(subcommand) => format!("exec {program} {subcommand}"),
            None => format!("exec {program}"),
        }
    }
}

/// Of runc, crun and the containerd shims.
const SUBCOMMANDS: [&str; 13] = [
    "create", "start", "run", "exec", "kill", "delete", "state", "update", "pause", "resume", "events", "features",
    "init",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_what_it_does() {
        let cases: [(&[&str], &[&str], &str); 6] = [
            (
                &["/usr/bin/runc", "--root", "/run/runc", "--log-format", "json", "create", "--bundle", "/b", "id"],
                &[],
                "exec runc create",
            ),
            (
                &["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "ab", "start"],
                &[],
                "exec containerd-shim-runc-v2 start",
            ),
            (&["/opt/cni/bin/bridge"], &["CNI_CONTAINERID=ab", "CNI_COMMAND=ADD"], "cni bridge ADD"),
            (&["conmon"], &[], "exec conmon"),
            (&["/"], &[], "exec "),
            (&[], &[], "exec ?"),
        ];
        for (argv, cni, name) in cases {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let exec = Exec {
                pid: 1,
                parent_pid: 0,
                argv: owned(argv),
                cni: owned(cni),
                started_ns: 0,
                ended_ns: None,
                exit_status: None,
                cpu_ns: None,
                owner: None,
            };
            assert_eq!(exec.name(), name);
        }
    }
}
