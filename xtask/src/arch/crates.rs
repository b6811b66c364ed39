//! Which of our crates may depend on which, and what the pure ones may depend on at all.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// Our crates that each of our crates may depend on. Test crates and xtask are free.
const EDGES: &[(&str, &[&str])] = &[
    ("spanlet-abi", &[]),
    ("spanlet-http2", &[]),
    ("spanlet-otlp", &[]),
    ("spanlet-proto", &[]),
    ("spanlet-ebpf", &["spanlet-abi"]),
    ("spanlet", &["spanlet-abi", "spanlet-http2", "spanlet-otlp", "spanlet-proto"]),
];
/// Crates of pure code (bytes in, values out) and all that they may depend on.
const PURE: &[(&str, &[&str])] = &[("spanlet-http2", &["bytes"]), ("spanlet-otlp", &["bytes"])];
/// Folders whose crates are free.
const FREE: [&str; 2] = ["tests", "xtask"];

/// Dependencies in `cargo metadata`'s answer that the tables do not allow; `root` is the repository.
pub(super) fn check(metadata: &str, root: &Path) -> Result<Vec<Finding>> {
    let metadata: Value = serde_json::from_str(metadata).context("reading cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata lists no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        check_package(package, root, &mut findings).context("reading a package of cargo's metadata")?;
    }
    Ok(findings)
}

fn check_package(package: &Value, root: &Path, findings: &mut Vec<Finding>) -> Option<()> {
    let name = package["name"].as_str()?;
    let manifest = Path::new(package["manifest_path"].as_str()?);
    let manifest = manifest.strip_prefix(root).unwrap_or(manifest);
    if FREE.iter().any(|folder| manifest.starts_with(folder)) {
        return Some(());
    }
    let mut find = |what: String| findings.push(Finding::new(manifest, 1, what));
    let Some((_, allowed)) = EDGES.iter().find(|(listed, _)| *listed == name) else {
        find(format!("crate `{name}` is not in the table of allowed edges (xtask/src/arch/crates.rs)"));
        return Some(());
    };
    let pure = PURE.iter().find(|(listed, _)| *listed == name).map(|(_, dependencies)| dependencies);
    let dependencies = package["dependencies"].as_array()?;
    for dependency in dependencies.iter().filter(|dependency| dependency["kind"] != "dev") {
        let target = dependency["name"].as_str()?;
        let is_ours = dependency["path"].is_string();
        if is_ours && !allowed.contains(&target) {
            find(format!("`{name}` may not depend on `{target}`"));
        } else if pure.is_some_and(|pure| !pure.contains(&target)) && !is_ours {
            find(format!("`{name}` is pure and may not depend on `{target}`"));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(packages: &Value) -> Vec<String> {
        let metadata = serde_json::json!({ "packages": packages }).to_string();
        let findings = check(&metadata, Path::new("/r")).expect("is metadata");
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    fn package(name: &str, folder: &str, dependencies: &Value) -> Value {
        serde_json::json!({ "name": name, "manifest_path": format!("/r/{folder}/Cargo.toml"), "dependencies": dependencies })
    }

    #[test]
    fn allowed_dependencies_pass() {
        let agent = serde_json::json!([
            { "name": "spanlet-otlp", "kind": null, "path": "/r/agent/otlp" },
            { "name": "tokio", "kind": null },
        ]);
        let tests = serde_json::json!([{ "name": "spanlet", "kind": null, "path": "/r/agent" }]);
        let otlp = serde_json::json!([{ "name": "bytes", "kind": null }, { "name": "proptest", "kind": "dev" }]);
        let packages = [
            package("spanlet", "agent", &agent),
            package("spanlet-e2e", "tests/e2e", &tests),
            package("spanlet-otlp", "agent/otlp", &otlp),
        ];
        assert_eq!(findings(&packages.into()), Vec::<String>::new());
    }

    #[test]
    fn other_dependencies_fail() {
        let upwards = serde_json::json!([{ "name": "spanlet", "kind": null, "path": "/r/agent" }]);
        let impure = serde_json::json!([{ "name": "tokio", "kind": null }]);
        let packages = [
            package("spanlet-proto", "proto", &upwards),
            package("spanlet-http2", "agent/http2", &impure),
            package("spanlet-extra", "agent/extra", &serde_json::json!([])),
        ];
        let expected = [
            "proto/Cargo.toml:1: `spanlet-proto` may not depend on `spanlet`",
            "agent/http2/Cargo.toml:1: `spanlet-http2` is pure and may not depend on `tokio`",
            "agent/extra/Cargo.toml:1: crate `spanlet-extra` is not in the table of allowed edges \
             (xtask/src/arch/crates.rs)",
        ];
        assert_eq!(findings(&packages.into()), expected);
    }

    #[test]
    fn what_is_no_metadata_is_an_error() {
        assert!(check("[]", Path::new("/r")).is_err());
        assert!(check(r#"{"packages":[{}]}"#, Path::new("/r")).is_err());
    }
}
