//! Looks at the machine, changing nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::plan::{Machine, Present, System, TOOLS};
use crate::sh;

/// Everything that [`super::plan::plan`] looks at.
pub(super) fn look() -> Result<Machine> {
    let owner = fs::metadata("/proc/self").context("reading who owns /proc/self")?.uid();
    let installed = installed_packages();
    let missing = TOOLS.iter().filter(|tool| !is_present(tool.present, tool.package, &installed));
    Ok(Machine {
        system: system(&fs::read_to_string("/etc/os-release").unwrap_or_default(), sh::on_path("apt-get")),
        is_root: owner == 0,
        missing: missing.map(|tool| tool.package).collect(),
        has_rustup: sh::on_path("rustup"),
        nightly_has_source: nightly_has_source(),
        bpf_linker: version_of("bpf-linker"),
        cargo_deny: version_of("cargo-deny"),
        cargo_fuzz: version_of("cargo-fuzz"),
        has_rust_linters: ["rustfmt", "clippy-driver"].iter().all(|tool| sh::probe(tool, &["--version"]).is_some()),
    })
}

/// What `/etc/os-release` says.
fn system(os_release: &str, has_apt: bool) -> System {
    let field = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"'))
    };
    match (field("ID"), field("VERSION_ID")) {
        (Some("debian"), Some("12")) if has_apt => System::Debian12,
        (id, _) if has_apt => System::OtherApt(id.unwrap_or("unknown").to_owned()),
        (id, _) => System::WithoutApt(id.unwrap_or("unknown").to_owned()),
    }
}

/// Which of the packages in [`TOOLS`] dpkg has installed, with and without their architecture; none where there is no dpkg.
fn installed_packages() -> BTreeSet<String> {
    let format = "-f=${db:Status-Status} ${Package}:${Architecture}\n";
    let names = TOOLS.iter().map(|tool| tool.package);
    let arguments: Vec<_> = ["-W", format].into_iter().chain(names).collect();
    // dpkg-query fails when one package is unknown, and lists the others all the same.
    let output = std::process::Command::new("dpkg-query").args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.strip_prefix("installed "));
    names.flat_map(|name| [name, name.split(':').next().unwrap_or(name)]).map(str::to_owned).collect()
}

fn is_present(present: Present, package: &str, installed: &BTreeSet<String>) -> bool {
    match present {
        Present::Package => installed.contains(package),
        Present::Program(name) => sh::on_path(name),
        Present::File(path) => Path::new(path).exists(),
        Present::StaticFile(path) => fs::read(path).is_ok_and(|program| !names_a_loader(&program)),
    }
}

/// Whether an ELF file asks for the dynamic loader; the path of it stands near the file's start.
fn names_a_loader(program: &[u8]) -> bool {
    let start = &program[..program.len().min(4096)];
    ["/lib64/ld-", "/lib/ld-"].iter().any(|path| start.windows(path.len()).any(|bytes| bytes == path.as_bytes()))
}

/// Whether `core` can be built from source with rustup's nightly.
fn nightly_has_source() -> bool {
    let Some(list) = sh::probe("rustup", &["component", "list", "--installed", "--toolchain", "nightly"]) else {
        return false;
    };
    list.lines().any(|line| line == "rust-src")
}

/// The version a tool prints, looked for among setup's own tools first.
fn version_of(tool: &str) -> Option<String> {
    let own = super::tools_dir().join("bin").join(tool);
    let text = sh::probe(own, &["--version"]).or_else(|| sh::probe(tool, &["--version"]))?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_names_no_loader() {
        assert!(names_a_loader(b"\x7fELF....../lib64/ld-linux-x86-64.so.2\0"));
        assert!(names_a_loader(b"\x7fELF....../lib/ld-linux-aarch64.so.1\0"));
        assert!(!names_a_loader(b"\x7fELF......"));
    }

    #[test]
    fn systems_are_told_apart() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(system(debian, true), System::Debian12);
        assert_eq!(system(debian, false), System::WithoutApt("debian".into()));
        assert_eq!(system("ID=debian\nVERSION_ID=\"13\"", true), System::OtherApt("debian".into()));
        assert_eq!(system("ID=ubuntu\nVERSION_ID=\"24.04\"", true), System::OtherApt("ubuntu".into()));
        assert_eq!(system("ID=\"fedora\"", false), System::WithoutApt("fedora".into()));
        assert_eq!(system("", false), System::WithoutApt("unknown".into()));
    }
}
