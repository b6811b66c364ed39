//! Puts the compiled kernel programs where `capture` includes them from; `cargo xtask build` compiles them.

use std::path::PathBuf;
use std::{env, fs};

/// Names another object than the one in the target folder.
const OBJECT_VARIABLE: &str = "SPANLET_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let object = env::var_os(OBJECT_VARIABLE).map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let copy = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("spanlet.o");
    if let Err(error) = fs::copy(&object, copy) {
        println!("cargo::error=no compiled kernel programs at {} ({error}): run `cargo xtask build`", object.display());
    }
}

/// `target/bpf/spanlet.o`.
fn default_object() -> PathBuf {
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.join(target).join("bpf/spanlet.o")
}
