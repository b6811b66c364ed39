//! What all human output shares: the terminal, durations, texts that came from elsewhere.

pub mod table;
pub mod waterfall;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Width of output that goes to no terminal.
const DEFAULT_WIDTH: usize = 100;

/// Narrower than this nothing can be drawn; lines break instead.
const MIN_WIDTH: usize = 60;

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Columns.
    pub width: usize,
    pub colours: bool,
    pub is_terminal: bool,
}

impl Terminal {
    /// Standard output. The width is `COLUMNS`, else the terminal's, else 100; colours are for terminals that want them
    /// (`NO_COLOR`, `TERM=dumb`).
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let from_environment = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let from_terminal = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = from_environment.or_else(from_terminal).filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH);
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width: width.max(MIN_WIDTH), colours: is_terminal && !is_set("NO_COLOR") && !is_dumb, is_terminal }
    }
}

/// Pretty-printed, with a final newline.
pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// A duration in the unit that suits it: `850 ns`, `102 µs`, `8.48 ms`, `359 ms`, `12.3 s`, `3m05s`, `2h05m`.
pub(super) fn nanoseconds(ns: u64) -> String {
    let (whole, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        1_000_000_000..60_000_000_000 => (ns as f64 / 1e9, "s"),
        _ => {
            let seconds = ns / 1_000_000_000;
            return match seconds / 60 {
                minutes @ 0..60 => format!("{minutes}m{:02}s", seconds % 60),
                minutes => format!("{}h{:02}m", minutes / 60, minutes % 60),
            };
        }
    };
    let decimals = match whole {
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{whole:.decimals$} {unit}")
}

pub(super) fn seconds(seconds: f64) -> String {
    nanoseconds((seconds * 1e9).round() as u64)
}

/// `97.7 %`, rounded down: only all is 100 %.
pub(super) fn ratio(ratio: f64) -> String {
    format!("{:.1} %", (ratio * 1e3).floor() / 10.0)
}

/// `RunPodSandbox` of `runtime.v1.RuntimeService/RunPodSandbox`; other names as they are.
pub(super) fn short_name(name: &str) -> &str {
    let is_method = !name.contains(' ');
    if is_method { name.rsplit('/').next().unwrap_or(name) } else { name }
}

/// Names and images come off the wire: control characters in them must not reach the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// At most `width` characters, the cut marked.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (132_000, "132 µs"),
            (8_481_000, "8.48 ms"),
            (45_678_000, "45.7 ms"),
            (358_727_000, "359 ms"),
            (1_048_680_000, "1.05 s"),
            (40_000_000_000, "40.0 s"),
            (185_000_000_000, "3m05s"),
            (7_500_000_000_000, "2h05m"),
        ] {
            assert_eq!(nanoseconds(ns), text);
        }
    }

    #[test]
    fn a_ratio_is_never_rounded_up_to_all() {
        assert_eq!(ratio(0.99999), "99.9 %");
        assert_eq!(ratio(1.0), "100.0 %");
    }

    #[test]
    fn texts_off_the_wire_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\n"), "a\u{fffd}[31mb\u{fffd}\u{fffd}");
    }

    #[test]
    fn long_texts_are_cut_visibly() {
        assert_eq!(fit("StartContainer", 5), "Star…");
        assert_eq!(fit("Start", 5), "Start");
    }
}
