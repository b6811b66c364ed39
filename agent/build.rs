//! Puts the kernel object that `cargo xtask build` made where the agent includes it from.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=SPANLET_BPF_OBJECT");
    let object = env::var_os("SPANLET_BPF_OBJECT").map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("spanlet.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!(
            "cargo::error=the kernel programs are not built ({}: {error}): run `cargo xtask build`",
            object.display()
        );
    }
}

/// `target/bpf/spanlet.o`, in whichever target directory this build uses.
fn default_object() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // OUT_DIR is target/[triple/]profile/build/spanlet-hash/out.
    let target = out.ancestors().find(|folder| folder.join(".rustc_info.json").exists());
    target.unwrap_or(&out).join("bpf").join("spanlet.o")
}
