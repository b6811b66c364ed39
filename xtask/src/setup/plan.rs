//! Decides what to install, from what the machine is and has; pure.

use std::collections::BTreeSet;

/// Release of the linker for BPF objects; it must know the LLVM of the compiler, [`LLVM_MAJOR`] for Debian's.
pub(super) const BPF_LINKER_VERSION: &str = "0.13.0";
/// LLVM of Debian 12's `rustc-web` and of the library that bpf-linker is linked with.
pub(super) const LLVM_MAJOR: &str = "22";
/// Checks licences and bans.
pub(super) const CARGO_DENY_VERSION: &str = "0.20.2";

/// Builds and runs fuzz targets.
pub(super) const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// What a command is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Build the kernel programs.
    KernelPrograms,
    /// Run pods: a container runtime with its network plugins and an image's content.
    Runtime,
    /// Check sources and dependencies.
    Lint,
    /// Fuzz.
    Fuzz,
    /// Boot other kernels.
    VirtualMachines,
    /// Build for arm64, and boot its kernels.
    Arm64,
}

impl Need {
    pub(crate) const ALL: [Self; 6] =
        [Self::KernelPrograms, Self::Runtime, Self::Lint, Self::Fuzz, Self::VirtualMachines, Self::Arm64];
}

/// How the kernel programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian 12's rustc, which comes with `core` for BPF.
    Debian,
    /// rustup's nightly, which builds `core` itself.
    Nightly,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum System {
    Debian12,
    /// Another system with apt, by its id.
    OtherApt(String),
    WithoutApt(String),
}

/// What tells that a tool is there. A file or program counts wherever it comes from, so that another packager's
/// containerd is left alone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Present {
    Package,
    Program(&'static str),
    File(&'static str),
    /// A program that needs no shared library, so that it runs in an image of its own.
    StaticFile(&'static str),
}

/// A Debian package that is needed for something.
#[derive(Debug)]
pub(super) struct Tool {
    /// Any of these asks for it.
    pub(super) needs: &'static [Need],
    /// Only for this way of building, if any.
    pub(super) toolchain: Option<Toolchain>,
    pub(super) package: &'static str,
    pub(super) present: Present,
}

const fn compiler(package: &'static str) -> Tool {
    Tool { needs: &[Need::KernelPrograms], toolchain: Some(Toolchain::Debian), package, present: Present::Package }
}

const fn runtime(package: &'static str, present: Present) -> Tool {
    Tool { needs: &[Need::Runtime], toolchain: None, package, present }
}

const fn virtual_machines(package: &'static str, present: Present) -> Tool {
    Tool { needs: &[Need::VirtualMachines], toolchain: None, package, present }
}

const fn arm64(package: &'static str, present: Present) -> Tool {
    Tool { needs: &[Need::Arm64], toolchain: Some(Toolchain::Debian), package, present }
}

pub(super) const TOOLS: &[Tool] = &[
    compiler("rustc-web"),
    compiler("libstd-rust-web-dev-bpf"),
    compiler("llvm-22-dev"),
    compiler("libzstd-dev"),
    compiler("g++"), // LLVM's static libraries are C++
    Tool {
        needs: &[Need::Lint],
        toolchain: Some(Toolchain::Debian),
        package: "rust-web-clippy",
        present: Present::Package,
    },
    // libFuzzer is C++
    Tool { needs: &[Need::Fuzz], toolchain: None, package: "g++", present: Present::Program("c++") },
    runtime("containerd", Present::Program("containerd")),
    runtime("runc", Present::Program("runc")),
    runtime("containernetworking-plugins", Present::File("/usr/lib/cni/bridge")),
    Tool {
        needs: &[Need::Runtime, Need::VirtualMachines],
        toolchain: None,
        package: "busybox-static",
        present: Present::StaticFile("/usr/bin/busybox"),
    },
    runtime("iproute2", Present::Program("ip")),
    virtual_machines("qemu-system-x86", Present::Program("qemu-system-x86_64")),
    virtual_machines("debian-archive-keyring", Present::File("/usr/share/keyrings/debian-archive-keyring.gpg")),
    arm64("qemu-system-arm", Present::Program("qemu-system-aarch64")),
    arm64("gcc-aarch64-linux-gnu", Present::Program("aarch64-linux-gnu-gcc")),
    arm64("libc6-dev-arm64-cross", Present::File("/usr/aarch64-linux-gnu/lib/libc.a")),
    arm64("libstd-rust-web-dev:arm64", Present::Package),
];

/// The facts that decide.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) system: System,
    pub(super) is_root: bool,
    /// Packages of [`TOOLS`] that are not there.
    pub(super) missing: BTreeSet<&'static str>,
    pub(super) has_rustup: bool,
    pub(super) nightly_has_source: bool,
    pub(super) bpf_linker: Option<String>,
    pub(super) cargo_deny: Option<String>,
    pub(super) cargo_fuzz: Option<String>,
    /// rustfmt and clippy of the toolchain in use, which a minimal installation leaves out.
    pub(super) has_rust_linters: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Apt {
        packages: Vec<&'static str>,
    },
    NightlyWithSource,
    /// Built with Debian's LLVM; `beside_users` if the user has another version, which stays.
    BpfLinker {
        beside_users: bool,
    },
    CargoDeny,
    CargoFuzz,
    RustLinters,
}

/// Something that only the user can bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lacking {
    pub(super) what: String,
    pub(super) remedy: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) toolchain: Toolchain,
    pub(super) steps: Vec<Step>,
    /// If anything is in here, no step is taken.
    pub(super) lacking: Vec<Lacking>,
}

/// What to do so that all of `needs` can be met.
pub(super) fn plan(needs: &[Need], machine: &Machine) -> Plan {
    let toolchain = choose_toolchain(machine);
    let mut plan = Plan { toolchain, steps: Vec::new(), lacking: Vec::new() };
    plan_packages(needs, machine, &mut plan);
    if needs.contains(&Need::KernelPrograms) {
        plan_compiler(machine, &mut plan);
    }
    if needs.contains(&Need::Lint) {
        plan_linters(machine, &mut plan);
    }
    if needs.contains(&Need::Fuzz) && machine.cargo_fuzz.is_none() {
        plan.steps.push(Step::CargoFuzz);
    }
    plan
}

/// What is there decides first, then what can be fetched: Debian 12 has all of it in apt.
fn choose_toolchain(machine: &Machine) -> Toolchain {
    let mut compiler = TOOLS.iter().filter(|tool| tool.needs.contains(&Need::KernelPrograms));
    let has_debians = !compiler.any(|tool| machine.missing.contains(tool.package));
    let has_nightly = machine.nightly_has_source && machine.bpf_linker.is_some();
    if has_debians || (machine.system == System::Debian12 && !has_nightly) {
        Toolchain::Debian
    } else {
        Toolchain::Nightly
    }
}

fn plan_packages(needs: &[Need], machine: &Machine, plan: &mut Plan) {
    let wanted = TOOLS.iter().filter(|tool| {
        tool.needs.iter().any(|need| needs.contains(need))
            && tool.toolchain.is_none_or(|toolchain| toolchain == plan.toolchain)
    });
    let mut packages: Vec<_> = wanted.map(|tool| tool.package).filter(|name| machine.missing.contains(name)).collect();
    let mut listed = BTreeSet::new();
    packages.retain(|package| listed.insert(*package)); // some are there for two needs
    if packages.is_empty() {
        return;
    }
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let remedy = match (&machine.system, machine.is_root) {
        (System::WithoutApt(id), _) => {
            format!("install what your system ({id}) calls them; Debian names them so")
        }
        (_, false) => format!("run this command as root, or as root: {command}"),
        (_, true) => return plan.steps.push(Step::Apt { packages }),
    };
    plan.lacking.push(Lacking { what: packages.join(", "), remedy });
}

fn plan_compiler(machine: &Machine, plan: &mut Plan) {
    match plan.toolchain {
        Toolchain::Debian => {
            if machine.bpf_linker.as_deref() != Some(BPF_LINKER_VERSION) {
                plan.steps.push(Step::BpfLinker { beside_users: machine.bpf_linker.is_some() });
            }
        }
        Toolchain::Nightly => plan_nightly(machine, plan),
    }
}

fn plan_nightly(machine: &Machine, plan: &mut Plan) {
    let mut lack = |what: &str, remedy: &str| {
        plan.lacking.push(Lacking { what: what.into(), remedy: remedy.into() });
    };
    if machine.bpf_linker.is_none() {
        // From source it would be tied to an LLVM that only happens to be nightly's.
        lack(
            "bpf-linker",
            "a release from https://github.com/aya-rs/bpf-linker/releases, or: cargo binstall bpf-linker",
        );
    }
    if machine.nightly_has_source {
        return;
    }
    if machine.has_rustup {
        plan.steps.push(Step::NightlyWithSource);
    } else {
        lack(
            "a nightly rustc with rust-src",
            "rustup (https://rustup.rs): rustup toolchain install nightly -c rust-src",
        );
    }
}

fn plan_linters(machine: &Machine, plan: &mut Plan) {
    if !machine.has_rust_linters {
        if machine.has_rustup {
            plan.steps.push(Step::RustLinters);
        } else {
            let remedy = "your system's packages of rustfmt and clippy";
            plan.lacking.push(Lacking { what: "rustfmt, clippy".into(), remedy: remedy.into() });
        }
    }
    if machine.cargo_deny.is_none() {
        plan.steps.push(Step::CargoDeny);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPILER: [&str; 5] = ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libzstd-dev", "g++"];
    const RUNTIME: [&str; 5] = ["containerd", "runc", "containernetworking-plugins", "busybox-static", "iproute2"];
    const VIRTUAL_MACHINES: [&str; 3] = ["busybox-static", "qemu-system-x86", "debian-archive-keyring"];

    /// A Debian 12 with nothing but rustup, used by root.
    fn fresh() -> Machine {
        Machine {
            system: System::Debian12,
            is_root: true,
            missing: TOOLS.iter().map(|tool| tool.package).collect(),
            has_rustup: true,
            nightly_has_source: false,
            bpf_linker: None,
            cargo_deny: None,
            cargo_fuzz: None,
            has_rust_linters: false,
        }
    }

    fn complete() -> Machine {
        Machine {
            missing: BTreeSet::new(),
            bpf_linker: Some(BPF_LINKER_VERSION.into()),
            cargo_deny: Some("0.18.0".into()),
            cargo_fuzz: Some("0.12.0".into()),
            has_rust_linters: true,
            ..fresh()
        }
    }

    #[test]
    fn nothing_to_do_when_all_is_there() {
        for is_root in [true, false] {
            let plan = plan(&Need::ALL, &Machine { is_root, ..complete() });
            assert_eq!(plan, Plan { toolchain: Toolchain::Debian, steps: vec![], lacking: vec![] });
        }
    }

    #[test]
    fn a_fresh_debian_gets_all_that_the_command_needs_and_no_more() {
        let linker = Step::BpfLinker { beside_users: false };
        let apt = |packages: &[&'static str]| Step::Apt { packages: packages.to_vec() };
        let demo: Vec<_> = COMPILER.into_iter().chain(RUNTIME).collect();
        let fuzz = || vec![apt(&COMPILER), linker.clone(), Step::CargoFuzz];
        let table: [(&[Need], Vec<Step>); 7] = [
            (&[], vec![]),
            (&[Need::KernelPrograms], vec![apt(&COMPILER), linker.clone()]),
            (&[Need::Fuzz], vec![apt(&["g++"]), Step::CargoFuzz]),
            (&[Need::KernelPrograms, Need::Fuzz], fuzz()),
            (&[Need::KernelPrograms, Need::Runtime], vec![apt(&demo), linker.clone()]),
            (&[Need::Lint], vec![apt(&["rust-web-clippy"]), Step::RustLinters, Step::CargoDeny]),
            (&[Need::VirtualMachines], vec![apt(&VIRTUAL_MACHINES)]),
        ];
        for (needs, steps) in table {
            let plan = plan(needs, &fresh());
            assert_eq!((plan.toolchain, plan.steps, plan.lacking), (Toolchain::Debian, steps, vec![]), "{needs:?}");
        }
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        let machine = Machine { missing: ["runc"].into(), ..complete() };
        assert_eq!(plan(&Need::ALL, &machine).steps, [Step::Apt { packages: vec!["runc"] }]);
    }

    #[test]
    fn without_root_the_user_is_told_the_command() {
        let plan = plan(&[Need::Runtime], &Machine { is_root: false, ..fresh() });
        assert_eq!(plan.steps, []);
        assert_eq!(plan.lacking.len(), 1);
        assert!(plan.lacking[0].remedy.contains("apt-get install --no-install-recommends containerd runc"));
    }

    #[test]
    fn without_apt_the_user_is_told_the_names() {
        let machine = Machine { system: System::WithoutApt("fedora".into()), ..fresh() };
        let plan = plan(&Need::ALL, &machine);
        assert_eq!(plan.lacking[0].what, [&["g++"], &RUNTIME[..], &VIRTUAL_MACHINES[1..]].concat().join(", "));
        assert!(plan.lacking[0].remedy.contains("fedora"));
    }

    #[test]
    fn nightly_is_for_systems_without_debians_compiler() {
        let linker = || Some("0.14.1".to_owned());
        let other =
            || Machine { system: System::OtherApt("ubuntu".into()), bpf_linker: linker(), is_root: false, ..fresh() };
        let table = [
            ("fetched by rustup", other(), vec![Step::NightlyWithSource]),
            ("there already", Machine { nightly_has_source: true, ..other() }, vec![]),
            ("on a fresh Debian", Machine { nightly_has_source: true, bpf_linker: linker(), ..fresh() }, vec![]),
        ];
        for (case, machine, steps) in table {
            let plan = plan(&[Need::KernelPrograms], &machine);
            assert_eq!((plan.toolchain, plan.steps, plan.lacking), (Toolchain::Nightly, steps, vec![]), "{case}");
        }
    }

    #[test]
    fn nightly_without_a_linker_is_left_to_the_user() {
        let machine = Machine { system: System::OtherApt("ubuntu".into()), ..fresh() };
        let plan = plan(&[Need::KernelPrograms], &machine);
        assert_eq!(plan.lacking.len(), 1);
        assert_eq!(plan.lacking[0].what, "bpf-linker");
    }

    #[test]
    fn nothing_brings_a_nightly_without_rustup() {
        let machine = Machine { system: System::WithoutApt("arch".into()), has_rustup: false, ..fresh() };
        let plan = plan(&[Need::KernelPrograms], &machine);
        assert!(plan.lacking.iter().any(|lack| lack.what.contains("nightly")), "{plan:?}");
    }

    #[test]
    fn linters_without_rustup_are_left_to_the_user() {
        let machine = Machine { has_rustup: false, has_rust_linters: false, ..complete() };
        assert_eq!(plan(&[Need::Lint], &machine).lacking[0].what, "rustfmt, clippy");
        assert_eq!(plan(&[Need::KernelPrograms, Need::Runtime], &machine).lacking, []);
    }

    #[test]
    fn another_version_of_the_linker_stays_where_it_is() {
        let machine = Machine { bpf_linker: Some("0.9.14".into()), ..complete() };
        let step = Step::BpfLinker { beside_users: true };
        assert_eq!(plan(&[Need::KernelPrograms], &machine).steps, [step]);
    }

    #[test]
    fn debians_compiler_wins_where_both_are_there() {
        let machine = Machine { nightly_has_source: true, ..complete() };
        assert_eq!(plan(&Need::ALL, &machine).toolchain, Toolchain::Debian);
    }
}
