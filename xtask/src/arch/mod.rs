//! `cargo xtask arch`: the rules of the code's shape that a compiler does not check.
//!
//! Which module and crate may use which ([`edges`], [`crates`]), how long things may be ([`limits`]), and what is
//! confined to few places ([`confined`]). Each finding is printed as `path:line: what`.

mod confined;
mod crates;
mod edges;
mod limits;
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, sh};
use source::Source;

/// A rule that is broken somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &Path, line: usize, what: String) -> Self {
        Self { path: path.to_owned(), line, what }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// Checks the repository; prints what it finds.
pub(crate) fn run() -> Result<()> {
    sh::heading("Checking the architecture");
    let sources = read_sources()?;
    let mut findings: Vec<_> = sources.iter().flat_map(check_file).collect();
    findings.extend(confined::check_ring_buffer(&sources));
    for manifest in manifests() {
        findings.extend(crates::check(&metadata(&manifest)?, &sh::root())?);
    }
    findings.sort();
    findings.dedup();
    findings.iter().for_each(|finding| println!("{finding}"));
    if !findings.is_empty() {
        bail!("the architecture has {} findings", findings.len());
    }
    sh::note(&format!("{} files keep the rules", sources.len()));
    Ok(())
}

fn check_file(source: &Source) -> Vec<Finding> {
    [edges::check(source), limits::check(source), confined::check(source)].concat()
}

/// Every Rust file that git knows or would add.
fn read_sources() -> Result<Vec<Source>> {
    let root = sh::root();
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]).current_dir(&root);
    let output = git.output().context("running git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let list = String::from_utf8(output.stdout).context("git ls-files names a file that is not UTF-8")?;
    let paths = list.lines().map(Path::new).filter(|path| root.join(path).is_file());
    let parse = |path: &Path| {
        let text = fs::read_to_string(root.join(path)).with_context(|| format!("reading {}", path.display()))?;
        Source::parse(path, &text)
    };
    paths.map(parse).collect()
}

/// The workspace, and the kernel programs beside it.
fn manifests() -> Vec<PathBuf> {
    let both = [sh::root().join("Cargo.toml"), build::programs_dir().join("Cargo.toml")];
    both.into_iter().filter(|manifest| manifest.is_file()).collect()
}

fn metadata(manifest: &Path) -> Result<String> {
    let mut cargo = sh::cargo();
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"]).arg(manifest);
    let output = cargo.output().context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo metadata is not UTF-8")
}
