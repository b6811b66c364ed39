//! What runs in the virtual machine: an initramfs of busybox, the agent, the node for tests and the recording.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::architecture::{Architecture, Programs};
use crate::sh;

/// The recording that is replayed, of `tests/fixtures/cri`.
pub(super) const RECORDING: &str = "cri-conn-k134-c17";

const INIT: &str = include_str!("init.sh");

/// Packs the programs of an architecture; returns the archive's path.
pub(super) fn initramfs(folder: &Path, architecture: Architecture, programs: &Programs) -> Result<PathBuf> {
    let root = folder.join("guest");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for subfolder in ["bin", "proc", "sys", "dev", "tmp", "recording"] {
        fs::create_dir_all(root.join(subfolder)).with_context(|| format!("creating {subfolder}"))?;
    }
    copy(&programs.busybox, &root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh")).context("linking sh")?;
    fs::write(root.join("init"), INIT).context("writing init")?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).context("making init executable")?;
    add_programs(&root, architecture, programs)?;
    add_recording(&root)?;
    pack(&root, &folder.join(format!("initramfs-{}.cpio", architecture.name())))
}

/// The very programs that tests run on this machine, with the libraries that they ask for here, and without what only a
/// debugger reads: the guest unpacks them into its memory.
fn add_programs(root: &Path, architecture: Architecture, programs: &Programs) -> Result<()> {
    for name in programs.names {
        let program = programs.folder.join(name);
        let mut strip = Command::new(architecture.strip());
        strip.arg("-o").arg(root.join("bin").join(name)).arg(&program);
        sh::step(&format!("Packing {name}"), &mut strip)?;
        if architecture.is_linked_statically() {
            continue;
        }
        let libraries = sh::probe("ldd", &[&program.to_string_lossy()]).context("asking ldd for libraries")?;
        for library in libraries_of(&libraries) {
            let inside = root.join(library.strip_prefix("/").expect("ldd tells absolute paths"));
            copy(library, &inside)?;
        }
    }
    Ok(())
}

fn add_recording(root: &Path) -> Result<()> {
    let recordings = sh::root().join("tests/fixtures/cri");
    let entries = fs::read_dir(&recordings).with_context(|| format!("listing {}", recordings.display()))?;
    for entry in entries {
        let name = entry.context("listing recordings")?.file_name();
        let is_part = name.to_string_lossy().strip_prefix(RECORDING).is_some_and(|rest| rest.starts_with('-'));
        if is_part {
            copy(&recordings.join(&name), &root.join("recording").join(&name))?;
        }
    }
    Ok(())
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let mut shell = Command::new("sh");
    shell.args(["-ec", "find . | busybox cpio -o -H newc > \"$1\"", "sh"]).arg(archive).current_dir(root);
    sh::step("Packing the guest", &mut shell)?;
    Ok(archive.to_owned())
}

/// What is linked in, `ldd` says so: a path alone is the loader, one behind an arrow a library.
fn libraries_of(ldd: &str) -> impl Iterator<Item = &Path> {
    ldd.lines().filter_map(|line| {
        let (name, _address) = line.trim().rsplit_once(" (")?;
        let path = name.rsplit(" => ").next().unwrap_or(name);
        path.starts_with('/').then(|| Path::new(path))
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().expect("every file of the guest lies in a folder");
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f7bca453000)\n\
                   \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f7bca342000)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f7bca455000)\n\
                   \tlibgone.so.1 => not found\n";
        let libraries: Vec<_> = libraries_of(ldd).collect();
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries, expected.map(Path::new));
        assert_eq!(libraries_of("\tstatically linked\n").count(), 0);
    }
}
