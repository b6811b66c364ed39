//! How much work each kernel's verifier has with each program, kept in a file of the repository: a program that has grown dear
//! to verify shows before some kernel refuses it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::sh;

/// Kernel, mode, program.
pub(super) type Key = (String, String, String);

/// Instructions that the verifier went through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Instructions {
    counts: BTreeMap<Key, u32>,
}

const HEADER: &str = "# Instructions that the verifier went through, by kernel (5.16 and newer tell), attach mode and program.\n\
                      # Written by `cargo xtask vm --record`, compared by every `cargo xtask vm`.\n";

/// How far a count may be above the recorded one: revisions of a kernel differ a little.
const TOLERANCE_PERCENT: u64 = 10;

impl Instructions {
    /// What the repository holds.
    pub(super) fn open() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("understanding {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kernel, mode, program, count] = words[..] else {
                anyhow::bail!("{line:?} is not KERNEL MODE PROGRAM COUNT");
            };
            let key = (kernel.to_owned(), mode.to_owned(), program.to_owned());
            counts.insert(key, count.parse().with_context(|| format!("{count:?} in {line:?}"))?);
        }
        Ok(Self { counts })
    }

    fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for ((kernel, mode, program), count) in &self.counts {
            writeln!(text, "{kernel:<12} {mode:<11} {program:<20} {count:>7}")
                .expect("writing to a String does not fail");
        }
        text
    }

    /// Why what one replay told is not as recorded, if it is not.
    pub(super) fn compare(&self, kernel: &str, mode: &str, told: &BTreeMap<String, Option<u32>>) -> Result<(), String> {
        let mut differing = Vec::new();
        for (program, count) in told.iter().filter_map(|(program, count)| Some((program, (*count)?))) {
            match self.counts.get(&(kernel.to_owned(), mode.to_owned(), program.clone())) {
                None => differing.push(format!("{program} has {count} verified instructions, and none recorded")),
                Some(recorded) if u64::from(count) * 100 > u64::from(*recorded) * (100 + TOLERANCE_PERCENT) => {
                    differing.push(format!("{program} has {count} verified instructions, {recorded} were recorded"));
                }
                Some(_) => {}
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        Err(format!("{}; if that is meant: cargo xtask vm --record", differing.join(", ")))
    }

    /// Takes what one replay told in place of what was recorded.
    pub(super) fn record(&mut self, kernel: &str, mode: &str, told: &BTreeMap<String, Option<u32>>) {
        self.counts.retain(|(known, of_mode, _), _| known != kernel || of_mode != mode);
        for (program, count) in told {
            if let Some(count) = count {
                self.counts.insert((kernel.to_owned(), mode.to_owned(), program.clone()), *count);
            }
        }
    }

    pub(super) fn save(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.render()).with_context(|| format!("writing {}", path.display()))
    }
}

fn path() -> PathBuf {
    sh::root().join("ebpf/instructions.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(count: u32) -> BTreeMap<String, Option<u32>> {
        BTreeMap::from([("sys_exit".to_owned(), Some(count)), ("untold".to_owned(), None)])
    }

    #[test]
    fn what_was_written_reads_back() {
        let mut instructions = Instructions::default();
        instructions.record("6.1", "tracepoint", &told(100));
        instructions.record("6.1", "tracepoint", &told(200));
        instructions.record("6.12-arm64", "kprobe", &told(300));
        assert_eq!(Instructions::parse(&instructions.render()).expect("it was just written"), instructions);
        assert_eq!(instructions.counts.len(), 2);
        Instructions::parse("6.1 kprobe sys_exit\n").expect_err("a count is missing");
    }

    #[test]
    fn growth_and_programs_without_a_record_are_told() {
        let mut instructions = Instructions::default();
        instructions.record("6.1", "tracepoint", &told(100));
        assert_eq!(instructions.compare("6.1", "tracepoint", &told(110)), Ok(()));
        assert_eq!(instructions.compare("6.1", "tracepoint", &told(10)), Ok(()));
        let why = instructions.compare("6.1", "tracepoint", &told(111)).expect_err("it grew by more than a tenth");
        assert!(why.contains("sys_exit has 111 verified instructions, 100 were recorded"), "{why}");
        instructions.compare("6.1", "kprobe", &told(1)).expect_err("nothing is recorded for kprobe");
    }
}
