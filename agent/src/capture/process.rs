//! Which container a process runs in, by its control group.

use std::collections::HashMap;
use std::sync::Arc;

use spanlet_abi::limits::ID_BYTES;

/// Processes remembered; a process that is not is looked up again.
const MAX_PROCESSES: usize = 1024;

/// Containers by process.
#[derive(Debug)]
pub struct Containers {
    known: HashMap<u32, Option<Arc<str>>>,
    /// The content of a process's `/proc/PID/cgroup`, empty if there is none.
    groups_of: fn(u32) -> String,
}

impl Default for Containers {
    fn default() -> Self {
        let groups_of = |process| std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        Self { known: HashMap::new(), groups_of }
    }
}

impl Containers {
    /// Where the processes are those of another time or machine: none is looked up.
    pub fn unknown() -> Self {
        Self { groups_of: |_| String::new(), ..Self::default() }
    }

    /// The container's id, `None` for a process of the node.
    pub fn of_process(&mut self, process: u32) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(&process) {
            return known.clone();
        }
        if self.known.len() == MAX_PROCESSES {
            self.known.clear();
        }
        let container = container_of(&(self.groups_of)(process)).map(Arc::from);
        self.known.insert(process, container.clone());
        container
    }
}

/// The last 64 hexadecimal digits in a row of any control group's path: runtimes name the group by the container's id, with or
/// without a prefix (`cri-containerd-…scope`, `crio-…`).
fn container_of(groups: &str) -> Option<&str> {
    groups.lines().rev().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(|part| part.split(|c: char| !c.is_ascii_hexdigit()).find(|run| run.len() == ID_BYTES))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "819de2e05fa7c8bb6f5d2c5ff5b4ff0bd2e90a6ca2f5c1d7a3f1e4b5c6d7e8f9";

    #[test]
    fn a_container_is_named_by_its_control_group() {
        let cases = [
            ("0::/system.slice/containerd.service".to_owned(), None),
            (format!("0::/kubepods/burstable/pod1-2/{ID}"), Some(ID)),
            (format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"), Some(ID)),
            (format!("12:memory:/kubepods/pod1/{ID}\n0::/"), Some(ID)),
            (format!("0::/x/{ID}0"), None),
            (String::new(), None),
        ];
        for (groups, expected) in cases {
            assert_eq!(container_of(&groups), expected, "{groups}");
        }
    }
}
