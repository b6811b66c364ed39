//! Kernel images from Debian's archive; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernels::Kernel;
use crate::setup::debian::{Mirror, PrivateApt, Suites};
use crate::sh;

/// Suites that have the kernels.
const SUITES: Suites<'_> =
    Suites { main: &["trixie-backports"], security: &["bullseye-security", "bookworm-security"] };
/// Of the kernels, whatever the machine's is.
const ARCHITECTURES: &str = "APT::Architectures { \"amd64\"; \"arm64\"; };\n";

/// The lists of packages of a few suites.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
    apt: PrivateApt,
}

impl Archive {
    /// Fetches the lists, from the mirror that the machine itself uses.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let mirror = Mirror::of_this_machine()?;
        let apt = PrivateApt::open(&folder.join("apt"), "Fetching lists of kernels", &mirror, &SUITES, ARCHITECTURES)?;
        Ok(Self { folder: folder.to_owned(), apt })
    }

    /// The newest image of `kernel`, fetched unless it is there already.
    pub(super) fn image(&self, kernel: &Kernel) -> Result<PathBuf> {
        let packages = kernel.packages;
        let names = sh::step(
            &format!("Looking for Linux {}", kernel.name),
            self.apt.command("apt-cache").args(["pkgnames", packages.prefix]),
        )?;
        let architecture = kernel.architecture.name();
        let package =
            newest(&names, architecture).with_context(|| format!("the archive has no cloud kernel {}", kernel.name))?;
        let release = package.trim_start_matches(packages.before_release);
        let path = format!("{}{release}{}", packages.folder, packages.file);
        self.file(self.apt.command("apt-get"), &format!("{package}:{architecture}"), &path)
    }

    /// A file of a package of the machine's own sources.
    pub(super) fn machines_file(&self, package: &str, path: &str) -> Result<PathBuf> {
        self.file(Command::new("apt-get"), package, path)
    }

    /// Fetches the package unless the file is there already.
    fn file(&self, apt: Command, package: &str, path: &str) -> Result<PathBuf> {
        let file = self.folder.join("files").join(package.replace(':', "_")).join(path);
        if !file.exists() {
            self.fetch(apt, package, path, &file)?;
        }
        Ok(file)
    }

    fn fetch(&self, mut download: Command, package: &str, path: &str, file: &Path) -> Result<()> {
        let unpacked = self.folder.join("unpacked");
        fs::create_dir_all(&unpacked).with_context(|| format!("creating {}", unpacked.display()))?;
        // As root, apt would fetch as another user, who may not be allowed to write here.
        download.args(["download", "-o", "APT::Sandbox::User=root", package]).current_dir(&unpacked);
        sh::step(&format!("Fetching {package}"), &mut download)?;
        let mut unpack = Command::new("sh");
        // The rest of a kernel, its modules, stays in the package.
        unpack.args(["-ec", "dpkg-deb --fsys-tarfile *.deb | tar --extract \"./$1\"", "sh", path]);
        sh::step(&format!("Unpacking {package}"), unpack.current_dir(&unpacked))?;
        let folder = file.parent().expect("it was joined to a folder");
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let found = unpacked.join(path);
        ensure!(found.metadata()?.len() > 0, "{path} of {package} is empty");
        fs::rename(&found, file).with_context(|| format!("moving {}", found.display()))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("removing {}", unpacked.display()))
    }
}

/// The cloud kernel with the highest numbers; signed ones have no suffix.
fn newest<'a>(packages: &'a str, architecture: &str) -> Option<&'a str> {
    let suffix = format!("-cloud-{architecture}");
    packages.lines().filter(|name| name.ends_with(&suffix)).max_by_key(|name| numbers(name))
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|byte: char| !byte.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_revision_is_taken() {
        let table = [
            ("linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n", "linux-image-6.1.0-56-cloud-amd64"),
            (
                "linux-image-6.1.0-0.deb11.52-cloud-amd64\nlinux-image-6.1.0-47-cloud-amd64",
                "linux-image-6.1.0-47-cloud-amd64",
            ),
            (
                "linux-image-6.18.5+deb13-cloud-amd64\nlinux-image-6.18.15+deb13-cloud-amd64-unsigned",
                "linux-image-6.18.5+deb13-cloud-amd64",
            ),
        ];
        for (packages, expected) in table {
            assert_eq!(newest(packages, "amd64"), Some(expected));
        }
        assert_eq!(newest("linux-image-6.1.0-56-amd64", "amd64"), None);
        assert_eq!(newest("linux-image-6.1.0-56-cloud-amd64", "arm64"), None);
    }
}
