//! A container image made on the spot from the machine's static busybox, so that no registry is needed.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The image's name; pods and sandboxes both run it.
pub const IMAGE: &str = "localhost/spanlet-busybox:1";

/// Commands that pods of tests run.
const APPLETS: [&str; 4] = ["sh", "sleep", "echo", "cat"];

/// What a sandbox runs: nothing, until it is killed.
const PAUSE: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"];

/// Writes a `docker save` archive (one layer) that `ctr images import` takes.
pub(super) fn write_archive(to: impl Write, busybox: &Path) -> Result<()> {
    let program = fs::read(busybox).with_context(|| format!("read {}", busybox.display()))?;
    let layer = layer(&program)?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Cmd": PAUSE, "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{:x}", Sha256::digest(&layer))]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);

    let mut archive = Builder::new(to);
    append_file(&mut archive, "config.json", 0o644, config.to_string().as_bytes())?;
    append_file(&mut archive, "layer.tar", 0o644, &layer)?;
    append_file(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for directory in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        append(&mut layer, EntryType::Directory, directory, 0o755, 0, std::io::empty())?;
    }
    append_file(&mut layer, "bin/busybox", 0o755, program)?;
    append_file(&mut layer, "etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    for applet in APPLETS {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(layer.into_inner()?)
}

fn append_file(archive: &mut Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    append(archive, EntryType::Regular, path, mode, content.len() as u64, content)
}

fn append(
    archive: &mut Builder<impl Write>,
    kind: EntryType,
    path: &str,
    mode: u32,
    size: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = header(kind, mode, size);
    archive.append_data(&mut header, path, content).with_context(|| format!("put {path} into the image"))
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// The machine's architecture as container images spell it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
