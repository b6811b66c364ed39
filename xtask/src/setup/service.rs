//! Keeps a package's service from starting just because the package was installed for a demo.
//!
//! Debian's maintainer scripts ask `/usr/sbin/policy-rc.d` before they start anything (invoke-rc.d(8)); while this
//! guard is held it answers "no". A policy that was there before decides instead, and stays. A service of a package
//! that was installed before is not looked at.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::sh;

const POLICY: &str = "/usr/sbin/policy-rc.d";
const LOCK: &str = "/run/lock/spanlet-setup.lock";
/// By this line a policy of an interrupted run is known.
const MARK: &str = "# cargo xtask put this here while it installs; it may be deleted";
/// Packages that bring a service of their own name.
const WITH_SERVICE: [&str; 1] = ["containerd"];

/// Held while packages are installed, by one command at a time. Services of these packages do not start while it lives.
#[derive(Debug)]
pub(super) struct Guard {
    _alone: File,
    policy_is_ours: bool,
    services: Vec<String>,
}

pub(super) fn keep_services_stopped(packages: &[&str]) -> Result<Guard> {
    let alone = open_lock()?;
    if alone.try_lock().is_err() {
        sh::note("another `cargo xtask` is installing; waiting for it");
        alone.lock().with_context(|| format!("locking {LOCK}"))?;
    }
    let services: Vec<_> =
        WITH_SERVICE.iter().filter(|name| packages.contains(name)).map(|name| format!("{name}.service")).collect();
    let mut guard = Guard { _alone: alone, policy_is_ours: false, services };
    if !guard.services.is_empty() && !Path::new(POLICY).exists() {
        sh::note(&format!("{} will be installed but not started", guard.services.join(", ")));
        fs::write(POLICY, format!("#!/bin/sh\n{MARK}\nexit 101\n")).with_context(|| format!("writing {POLICY}"))?;
        guard.policy_is_ours = true;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(POLICY, executable).with_context(|| format!("making {POLICY} executable"))?;
    }
    Ok(guard)
}

impl Guard {
    /// Takes the services out of the boot sequence too: nobody asked for them.
    pub(super) fn leave_out_of_boot(&self) {
        for service in self.services.iter().filter(|_| sh::on_path("systemctl")) {
            if sh::probe("systemctl", &["disable", service]).is_none() {
                sh::note(&format!("{service} will start at the next boot: `systemctl disable {service}` failed"));
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.policy_is_ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("warning: {POLICY} could not be removed: {error}");
        }
    }
}

/// Removes the policy of a run that was killed while it installed.
pub(super) fn remove_stale_guard() -> Result<()> {
    let is_ours = fs::read_to_string(POLICY).is_ok_and(|policy| policy.contains(MARK));
    if is_ours && open_lock()?.try_lock().is_ok() {
        fs::remove_file(POLICY).with_context(|| format!("removing {POLICY}, left by an interrupted run"))?;
    }
    Ok(())
}

fn open_lock() -> Result<File> {
    fs::create_dir_all("/run/lock").context("creating /run/lock")?;
    File::create(LOCK).with_context(|| format!("creating {LOCK}"))
}
