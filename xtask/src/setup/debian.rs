//! Other suites of Debian than the machine's own, from the mirror that it uses, through apt with a configuration in a
//! folder of ours: the machine's lists of packages and sources stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

/// Signs every suite; of the package of the same name.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A mirror of Debian has two parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Of the release that the machine takes from it.
    pub(super) codename: String,
    main: String,
    security: String,
}

/// Suites of the two parts.
#[derive(Debug)]
pub(crate) struct Suites<'a> {
    pub(crate) main: &'a [&'a str],
    pub(crate) security: &'a [&'a str],
}

/// apt that knows only some suites, and keeps their lists and packages to itself.
#[derive(Debug)]
pub(crate) struct PrivateApt {
    folder: PathBuf,
}

impl Mirror {
    /// The one that the machine itself uses, which can be reached.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let targets = sh::probe("apt-get", &["indextargets", "--format", "$(RELEASE) $(REPO_URI)"]);
        Self::among(&targets.context("asking apt for the machine's sources")?)
            .context("none of the machine's apt sources is a mirror of Debian with its security archive")
    }

    /// Reads `apt-get indextargets` in the format `SUITE URI`. Debian's security archive is known by its suite; the main
    /// one has a suite for updates of the same release, which other vendors' archives have not.
    fn among(targets: &str) -> Option<Self> {
        let suites: Vec<(&str, &str)> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
        suites.iter().find_map(|(suite, security)| {
            let codename = suite.strip_suffix("-security")?;
            let updates = format!("{codename}-updates");
            let (_, main) = suites.iter().find(|(suite, _)| *suite == updates)?;
            let [codename, main, security] = [codename, *main, *security].map(str::to_owned);
            Some(Self { codename, main, security })
        })
    }

    fn sources(&self, suites: &Suites<'_>) -> String {
        let security = suites.security.iter().map(|suite| (&self.security, suite));
        let main = suites.main.iter().map(|suite| (&self.main, suite));
        let line = |(uri, suite): (&String, &&str)| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
        security.chain(main).map(line).collect()
    }
}

impl PrivateApt {
    /// Writes the configuration, with `settings` added, and fetches the lists.
    pub(crate) fn open(
        folder: &Path,
        title: &str,
        mirror: &Mirror,
        suites: &Suites<'_>,
        settings: &str,
    ) -> Result<Self> {
        for subfolder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(subfolder)).with_context(|| format!("creating {subfolder}"))?;
        }
        fs::write(folder.join("sources.list"), mirror.sources(suites)).context("writing sources.list")?;
        fs::write(folder.join("apt.conf"), configuration(folder) + settings).context("writing apt.conf")?;
        let apt = Self { folder: folder.to_owned() };
        sh::step(title, apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// A program of apt with this configuration.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    /// Removes lists and packages that are not needed again.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }
}

/// Read before the machine's own configuration, whose proxies stay in force. As root, apt would fetch as another user, who
/// may not be allowed to write here.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_machines_own() {
        let targets = "bookworm-pgdg http://apt.example/pg/\nbookworm http://mirror.example/debian/\n\
                       bookworm-updates http://mirror.example/debian/\n\
                       bookworm-security http://mirror.example/debian-security/\n";
        let mirror = Mirror::among(targets).expect("it is Debian");
        let expected = ("bookworm", "http://mirror.example/debian/", "http://mirror.example/debian-security/");
        assert_eq!((mirror.codename.as_str(), mirror.main.as_str(), mirror.security.as_str()), expected);
        let suites = Suites { main: &["trixie-backports"], security: &["bullseye-security"] };
        let sources = mirror.sources(&suites);
        assert!(sources.contains("http://mirror.example/debian-security/ bullseye-security main\n"), "{sources}");
        assert!(sources.contains("http://mirror.example/debian/ trixie-backports main\n"), "{sources}");
    }

    #[test]
    fn without_a_security_archive_there_is_no_mirror() {
        assert_eq!(Mirror::among("bookworm http://mirror.example/debian/\n"), None);
        assert_eq!(Mirror::among(""), None);
    }
}
