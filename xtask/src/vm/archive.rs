//! Kernel images from Debian's archive, through apt with a configuration of its own: the machine's lists of packages and
//! sources stay as they are, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernels::Kernel;
use crate::sh;

/// Signs every suite below; of the package of the same name.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Suites of the security archive and of the main one that have the kernels.
const SECURITY_SUITES: [&str; 2] = ["bullseye-security", "bookworm-security"];
const MAIN_SUITES: [&str; 1] = ["trixie-backports"];

/// The lists of packages of a few suites.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
}

/// The two parts of a mirror of Debian.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    main: String,
    security: String,
}

impl Archive {
    /// Fetches the lists, from the mirror that the machine itself uses.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let archive = Self { folder: folder.to_owned() };
        let targets = sh::probe("apt-get", &["indextargets", "--format", "$(RELEASE) $(REPO_URI)"]);
        let mirror = mirror_of(&targets.context("asking apt for the machine's sources")?)
            .context("none of the machine's apt sources is a mirror of Debian with its security archive")?;
        for subfolder in ["apt/lists/partial", "apt/cache/archives/partial"] {
            fs::create_dir_all(folder.join(subfolder)).with_context(|| format!("creating {subfolder}"))?;
        }
        let apt = folder.join("apt");
        fs::write(apt.join("sources.list"), sources(&mirror)).context("writing sources.list")?;
        fs::write(apt.join("apt.conf"), configuration(&apt)).context("writing apt.conf")?;
        sh::step("Fetching lists of kernels", archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// The newest image of `kernel`, fetched unless it is there already.
    pub(super) fn image(&self, kernel: &Kernel) -> Result<PathBuf> {
        let packages = kernel.packages;
        let names = sh::step(
            &format!("Looking for Linux {}", kernel.name),
            self.apt("apt-cache").args(["pkgnames", packages.prefix]),
        )?;
        let architecture = kernel.architecture.name();
        let package =
            newest(&names, architecture).with_context(|| format!("the archive has no cloud kernel {}", kernel.name))?;
        let release = package.trim_start_matches(packages.before_release);
        let path = format!("{}{release}{}", packages.folder, packages.file);
        self.file(self.apt("apt-get"), &format!("{package}:{architecture}"), &path)
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

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt/apt.conf"));
        command
    }
}

/// Reads `apt-get indextargets` in the format `SUITE URI`. Debian's security archive is known by its suite; the main one has a
/// suite for updates of the same release, which other vendors' archives have not.
fn mirror_of(targets: &str) -> Option<Mirror> {
    let suites: Vec<(&str, &str)> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
    suites.iter().find_map(|(suite, security)| {
        let codename = suite.strip_suffix("-security")?;
        let updates = format!("{codename}-updates");
        let (_, main) = suites.iter().find(|(suite, _)| *suite == updates)?;
        Some(Mirror { main: (*main).to_owned(), security: (*security).to_owned() })
    })
}

fn sources(mirror: &Mirror) -> String {
    let security = SECURITY_SUITES.map(|suite| (&mirror.security, suite));
    let main = MAIN_SUITES.map(|suite| (&mirror.main, suite));
    let line =
        |(uri, suite): (&String, &str)| format!("deb [signed-by={KEYRING} arch=amd64,arm64] {uri} {suite} main\n");
    security.into_iter().chain(main).map(line).collect()
}

/// Read before the machine's own configuration, whose proxies stay in force.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
         Acquire::Languages \"none\";\n"
    )
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
    fn the_mirror_is_the_machines_own() {
        let targets = "bookworm-pgdg http://apt.example/pg/\nbookworm http://mirror.example/debian/\n\
                       bookworm-updates http://mirror.example/debian/\n\
                       bookworm-security http://mirror.example/debian-security/\n";
        let mirror = mirror_of(targets).expect("it is Debian");
        let expected = ("http://mirror.example/debian/", "http://mirror.example/debian-security/");
        assert_eq!((mirror.main.as_str(), mirror.security.as_str()), expected);
        let sources = sources(&mirror);
        assert!(sources.contains("http://mirror.example/debian-security/ bullseye-security main\n"), "{sources}");
        assert!(sources.contains("http://mirror.example/debian/ trixie-backports main\n"), "{sources}");
    }

    #[test]
    fn without_a_security_archive_there_is_no_mirror() {
        assert_eq!(mirror_of("bookworm http://mirror.example/debian/\n"), None);
        assert_eq!(mirror_of(""), None);
    }

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
