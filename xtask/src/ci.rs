//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::{lint, test, vm};

pub(crate) fn run() -> Result<()> {
    lint::run()?;
    test::run(&test::Arguments::default())?;
    vm::run(&vm::Arguments::default())
}
