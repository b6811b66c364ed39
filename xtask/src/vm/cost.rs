//! What probes cost in instructions of the guest: QEMU advances the guest's clock by one nanosecond an instruction, so CPU times
//! that the bench measures there are counts, the same on every machine however busy.

use serde::Deserialize;

use super::kernels::{Boot, Kernel};

/// What the bench says of one mode.
#[derive(Debug, Deserialize)]
struct Told {
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    work: String,
    without_ns: f64,
    added_ns: f64,
}

/// Prints a boot's table. A mode whose bench failed is an error.
pub(super) fn report(kernel: &Kernel, boot: &Boot, console: &str) -> Result<(), String> {
    for mode in boot.modes.iter().filter(|mode| kernel.lack_of(mode).is_none()) {
        let prefix = format!("vm-cost {mode} ");
        let line = console.lines().find_map(|line| line.trim().strip_prefix(&prefix));
        let told = line.and_then(|line| serde_json::from_str::<Told>(line).ok());
        let told = told.ok_or_else(|| format!("{} {mode}: the bench said nothing", boot.title(kernel)))?;
        for row in told.rows {
            println!(
                "{} {mode:<10} {:<45} {:>7.0} instructions, {:>+6.0} with probes",
                boot.title(kernel),
                row.work,
                row.without_ns,
                row.added_ns
            );
        }
    }
    Ok(())
}
