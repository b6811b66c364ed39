//! Running commands: what is run is said first, long steps show progress, the output of a failed step is shown.
//!
//! Children never read the terminal: their standard input is `/dev/null`, except in [`hand_over`].

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, PipeReader, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often the spinner turns on a terminal.
pub(crate) const SPIN: Duration = Duration::from_millis(120);
/// How often a line of progress is printed where no terminal is.
const REPORT: Duration = Duration::from_secs(10);
/// Lines waiting to be looked at; a full queue only makes the child wait.
const QUEUE_LINES: usize = 256;
/// Width of the progress line, so that it fits the narrowest usual terminal.
const LINE_CHARS: usize = 79;

/// The cargo that runs this program, without the library path that it sets for its children: Debian's rustc, started
/// further down, must find its own libraries.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env_remove("LD_LIBRARY_PATH").current_dir(root());
    command
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the repository").to_owned()
}

/// The folder that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Announces a part of the work.
pub(crate) fn heading(text: &str) {
    println!("==> {text}");
}

/// One line of detail under a heading.
pub(crate) fn note(text: &str) {
    println!("    {text}");
}

/// Runs a command with progress and returns its standard output and error as they came; a failure shows them.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<String> {
    let (status, output) = watch(title, command, |_| false)?;
    if !status.success() {
        eprint!("{output}");
        bail!("{title}: `{}` failed ({status})", display(command));
    }
    Ok(output)
}

/// Runs a command without showing anything, for those that run side by side; the caller judges how it ended. What it says goes to a
/// file, where it can be followed.
pub(crate) fn into_file(command: &mut Command, path: &Path) -> Result<ExitStatus> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone().context("sharing a file")?).stderr(file);
    command.status().with_context(|| cannot_start(command))
}

/// Like [`step`], but prints the lines that `shown` picks as they come; a failure shows the others too.
pub(crate) fn filtered(title: &str, command: &mut Command, shown: impl Fn(&str) -> bool) -> Result<String> {
    let (status, output) = watch(title, command, &shown)?;
    if !status.success() {
        output.lines().filter(|line| !shown(line)).for_each(|line| eprintln!("{line}"));
        bail!("{title}: `{}` failed ({status})", display(command));
    }
    Ok(output)
}

/// Becomes another program; returns only if that cannot be started.
pub(crate) fn hand_over(command: &mut Command) -> anyhow::Error {
    let error = command.env_remove("LD_LIBRARY_PATH").exec();
    anyhow::Error::new(error).context(cannot_start(command))
}

/// Standard output of a quick command that succeeds, without showing anything; used to look at the machine.
pub(crate) fn probe(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("LD_LIBRARY_PATH").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of that name is on `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The command as a person would type it.
pub(crate) fn display(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs().filter(|(name, _)| *name != "PATH") {
        if let Some(value) = value {
            write!(text, "{}={:?} ", name.display(), value).expect("writing to a string");
        }
    }
    text.push_str(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", display(command))
}

/// Runs the command, keeps its output, shows progress and the lines that `shown` picks.
fn watch(title: &str, command: &mut Command, shown: impl Fn(&str) -> bool) -> Result<(ExitStatus, String)> {
    heading(title);
    let (output, input) = std::io::pipe().context("making a pipe")?; // one for both streams keeps their order
    command.stdin(Stdio::null()).stdout(input.try_clone().context("making a pipe")?).stderr(input);
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    command.stdout(Stdio::null()).stderr(Stdio::null()); // closes our end, so that the child's end ends the output
    let lines = read_lines(output);
    let mut progress = Progress::start(title);
    let mut output = String::new();
    loop {
        match lines.recv_timeout(SPIN) {
            Ok(line) => {
                if shown(&line) {
                    progress.clear();
                    println!("{line}");
                }
                output.push_str(&line);
                output.push('\n');
                progress.tick(Some(&line));
            }
            Err(RecvTimeoutError::Timeout) => progress.tick(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().with_context(|| format!("waiting for `{}`", display(command)))?;
    progress.clear();
    Ok((status, output))
}

/// What the child says, line by line; ends when the child and all it started have closed their ends.
fn read_lines(output: PipeReader) -> Receiver<String> {
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A line that turns on a terminal, a line now and then elsewhere.
pub(crate) struct Progress {
    title: String,
    terminal: bool,
    started: Instant,
    drawn: Instant,
    turns: usize,
    last_line: String,
}

impl Progress {
    pub(crate) fn start(title: &str) -> Self {
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Self { title: title.to_owned(), terminal, started: now, drawn: now, turns: 0, last_line: String::new() }
    }

    pub(crate) fn tick(&mut self, line: Option<&str>) {
        // Not the drawings below a compiler's message.
        let is_said = |line: &&str| line.trim_start().starts_with(char::is_alphanumeric);
        if let Some(line) = line.filter(is_said) {
            self.last_line = line.trim().to_owned();
        }
        let period = if self.terminal { SPIN } else { REPORT };
        if self.drawn.elapsed() < period {
            return;
        }
        self.drawn = Instant::now();
        self.turns += 1;
        let seconds = self.started.elapsed().as_secs();
        let mark = if self.terminal { ["-", "\\", "|", "/"][self.turns % 4] } else { "..." };
        let line: String = format!("  {mark} {seconds:>3} s  {}", self.last_line).chars().take(LINE_CHARS).collect();
        if self.terminal {
            print!("\r\x1b[K{line}");
            std::io::stdout().flush().ok();
        } else {
            println!("{line}   [{}]", self.title);
        }
    }

    pub(crate) fn clear(&self) {
        if self.terminal && self.turns > 0 {
            print!("\r\x1b[K");
            std::io::stdout().flush().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_step_returns_both_streams_in_order() {
        let output = step("both", &mut shell("echo one; echo two >&2; echo three")).expect("succeeds");
        assert_eq!(output, "one\ntwo\nthree\n");
    }

    #[test]
    fn a_failed_step_names_the_command() {
        let error = step("failing", &mut shell("exit 3")).expect_err("fails");
        assert!(error.to_string().contains("sh -c exit 3"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = step("absent", &mut Command::new("/no/such/program")).expect_err("cannot start");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }

    #[test]
    fn children_do_not_read_the_terminal() {
        assert_eq!(step("reading", &mut shell("cat")).expect("ends at once"), "");
    }

    #[test]
    fn a_probe_that_fails_is_none() {
        assert_eq!(probe("false", &[]), None);
        assert_eq!(probe("/no/such/program", &[]), None);
        assert_eq!(probe("echo", &["hi"]).as_deref(), Some("hi\n"));
    }
}
