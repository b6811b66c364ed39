//! `cargo xtask test`: every test that this machine can run, and a list of those that it cannot.
//!
//! A test that finds something missing prints one line, `skipped: WHY`, and returns. Long tests are `#[ignore]`d and run
//! with `--long`. Test programs run one after another, and those of whole nodes let their tests take turns.

use std::time::Instant;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{build, sh};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Add the tests that take minutes each
    #[arg(long)]
    long: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let ready = setup::ensure(&[Need::KernelPrograms])?;
    let without_runtime = setup::ensure_if_possible(&[Need::Runtime])?;
    build::kernel_programs(ready)?;
    let mut compile = sh::cargo();
    compile.args(["test", "--locked", "--workspace", "--no-run"]);
    sh::step("Building the agent and all tests", &mut compile)?;
    let mut binaries = sh::cargo();
    binaries.args(["build", "--locked", "--package", "spanlet", "--package", "spanlet-node"]);
    sh::step("Building the programs that the tests start", &mut binaries)?;

    let mut tests = sh::cargo();
    tests.args(["test", "--locked", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    if arguments.long {
        tests.arg("--include-ignored");
    }
    let output = sh::filtered("Testing", &mut tests, is_shown)?;
    report(&Summary::read(&output), without_runtime, started.elapsed().as_secs());
    Ok(())
}

/// Which lines of the test runners are worth showing while they pass.
fn is_shown(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("Running ") || line.starts_with("Doc-tests ") || line.starts_with("test result: ")
}

fn report(total: &Summary, without_runtime: Option<setup::Unavailable>, seconds: u64) {
    sh::heading(&format!("{} tests passed in {seconds} s", total.passed));
    if total.ignored > 0 {
        sh::note(&format!("{} long tests were left out (--long)", total.ignored));
    }
    if let Some(unavailable) = without_runtime {
        sh::note(&unavailable.to_string());
    }
    for (test, reason) in &total.skipped {
        sh::note(&format!("could not run here: {test}: {reason}"));
    }
}

/// What test runners said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: usize,
    ignored: usize,
    /// Test and reason.
    skipped: Vec<(String, String)>,
}

impl Summary {
    /// Reads the output of `cargo test -- --show-output`.
    fn read(output: &str) -> Self {
        let mut summary = Self::default();
        let mut test = "";
        for line in output.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                summary.passed += count(result, " passed");
                summary.ignored += count(result, " ignored");
            } else if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
                test = name;
            } else if let Some(reason) = line.strip_prefix("skipped: ") {
                summary.skipped.push((test.to_owned(), reason.to_owned()));
            }
        }
        summary.passed -= summary.skipped.len().min(summary.passed);
        summary
    }
}

/// The number before `what` in "ok. 3 passed; 0 failed; 1 ignored; …".
fn count(result: &str, what: &str) -> usize {
    let before = result.split(what).next().filter(|before| before.len() < result.len());
    before.and_then(|before| before.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
     Running unittests src/lib.rs (target/debug/deps/spanlet_e2e-1)

running 3 tests
test cold_start ... ok
test churn ... ignored, long
test real_pod ... ok

successes:

---- real_pod stdout ----
skipped: containerd is not installed

successes:
    cold_start
    real_pod

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: ok. 11 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    #[test]
    fn passed_ignored_and_skipped_tests_are_told_apart() {
        let skipped = vec![("real_pod".to_owned(), "containerd is not installed".to_owned())];
        assert_eq!(Summary::read(OUTPUT), Summary { passed: 12, ignored: 1, skipped });
    }

    #[test]
    fn other_output_counts_nothing() {
        assert_eq!(Summary::read("test result: what?\npassed"), Summary::default());
    }
}
