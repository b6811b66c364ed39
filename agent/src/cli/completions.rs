//! `spanlet completions`.

use std::io::Write;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Error;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    shell: Shell,
}

pub(super) fn execute(arguments: &Arguments, output: &mut impl Write) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "spanlet", &mut script);
    output.write_all(&script).map_err(Error::from)
}
