//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz` under libFuzzer, for some minutes each.
//!
//! What is found new goes to `target/fuzz-corpus`; `--merge` then makes of it and the committed corpus the smallest one that covers
//! as much. What breaks a rule is written to `tests/fuzz/artifacts`, and belongs into `tests/fuzz/regressions` with its fix:
//! `cargo xtask test` runs both folders, and mutations of them, without libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, Need};
use crate::{build, sh};

/// The programs of `tests/fuzz/Cargo.toml`.
const TARGETS: [&str; 4] = ["frame", "hpack", "connection", "record"];
/// Longest input, libFuzzer's own default; given because merging would else take the longest of the corpus.
const MAX_BYTES: &str = "-max_len=4096";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to fuzz; default: all, one after the other
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Afterwards, replace each target's committed corpus by the smallest one that covers as much as all that is known
    #[arg(long)]
    merge: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ready = setup::ensure(&[Need::KernelPrograms, Need::Fuzz])?;
    build::kernel_programs(ready)?; // a part of the agent, whose decoder is fuzzed
    sh::step("Building the fuzz targets (ten minutes the first time)", &mut cargo_fuzz("build"))?;
    let is_wanted = |target: &&str| arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target);
    for target in TARGETS.into_iter().filter(is_wanted) {
        fuzz(target, arguments.minutes)?;
        if arguments.merge {
            merge(target)?;
        }
    }
    Ok(())
}

fn fuzz(target: &str, minutes: u64) -> Result<()> {
    let found = found_folder(target);
    fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let mut run = cargo_fuzz("run");
    run.arg(target).args([&found, &committed_folder(target)]);
    run.args(["--", MAX_BYTES, "-print_final_stats=1", &format!("-max_total_time={}", minutes * 60)]);
    let output = sh::step(&format!("Fuzzing {target} for {minutes} min"), &mut run)?;
    output.lines().filter(|line| is_result(line)).for_each(sh::note);
    Ok(())
}

/// The lines at the end of libFuzzer's output that tell how far it came: the coverage reached and the number of inputs run.
fn is_result(line: &str) -> bool {
    line.contains("\tDONE ") || line.starts_with("stat::number_of_executed_units:")
}

/// libFuzzer's own merge takes inputs from the shortest on, each only if it covers more. How often an input passes an edge does not
/// count: that would keep five times as many files.
fn merge(target: &str) -> Result<()> {
    let (committed, found) = (committed_folder(target), found_folder(target));
    let merged = sh::target_dir().join("fuzz-merged").join(target);
    if merged.exists() {
        fs::remove_dir_all(&merged).with_context(|| format!("removing {}", merged.display()))?;
    }
    fs::create_dir_all(&merged).with_context(|| format!("creating {}", merged.display()))?;
    let mut run = cargo_fuzz("run");
    run.arg(target).args([&merged, &committed, &found]).args(["--", MAX_BYTES, "-merge=1", "-use_counters=0"]);
    sh::step(&format!("Merging the corpora of {target}"), &mut run)?;
    replace(&committed, &merged)
}

/// Puts copies of one folder's files where another's are.
fn replace(old: &Path, new: &Path) -> Result<()> {
    fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
    fs::create_dir_all(old).with_context(|| format!("creating {}", old.display()))?;
    for entry in fs::read_dir(new).with_context(|| format!("listing {}", new.display()))? {
        let entry = entry.with_context(|| format!("listing {}", new.display()))?;
        fs::copy(entry.path(), old.join(entry.file_name())).with_context(|| format!("copying {:?}", entry.path()))?;
    }
    Ok(())
}

fn cargo_fuzz(command: &str) -> Command {
    let mut cargo = setup::with_tools(sh::cargo());
    cargo.args(["fuzz", command, "--fuzz-dir"]).arg(fuzz_dir());
    cargo.env("CARGO_TARGET_DIR", sh::target_dir()); // where the kernel programs are
    cargo.env("RUSTC_BOOTSTRAP", "1"); // the fuzzer's instrumentation takes unstable options, which a stable compiler has, locked
    cargo
}

fn fuzz_dir() -> PathBuf {
    sh::root().join("tests/fuzz")
}

fn committed_folder(target: &str) -> PathBuf {
    fuzz_dir().join("corpus").join(target)
}

fn found_folder(target: &str) -> PathBuf {
    sh::target_dir().join("fuzz-corpus").join(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).expect("is committed");
        for target in TARGETS {
            assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
            assert!(committed_folder(target).is_dir(), "{target}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }

    #[test]
    fn coverage_and_runs_are_shown() {
        assert!(is_result("#42732\tDONE   cov: 603 ft: 2929 corp: 401/71Kb lim: 654 exec/s: 3287 rss: 418Mb"));
        assert!(is_result("stat::number_of_executed_units: 42732"));
        assert!(!is_result("#42588\tREDUCE cov: 603 ft: 2929"));
    }
}
