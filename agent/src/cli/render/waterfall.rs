//! The waterfall of a pod's start.
//!
//! ```text
//!  bar: when, against the whole start │ name, indented by depth          │ how long
//!  ███████████████▌                   │   RunPodSandbox                  │   359 ms
//!                                     │   where the call spent that: waits, handling
//! ```

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::api::{Entry, EntryKind, PodState, PodTimeline};

use super::{Terminal, fit, nanoseconds, printable, ratio, seconds, short_name};

/// Columns of the duration, right-aligned.
const DURATION_COLUMNS: usize = 9;

/// Columns of the name: enough for a CRI method with a container's name.
const MAX_NAME_COLUMNS: usize = 48;

const BETWEEN: usize = 2;

const BETWEEN_DETAILS: &str = " · ";

/// Gaps and inner steps shorter than this part of the start are summed up in one line, unless all is asked for.
const SHORT_PART: u64 = 200;

/// Writes the pod's head and one bar per entry.
pub fn write(out: &mut impl Write, timeline: &PodTimeline, terminal: &Terminal, all: bool) -> io::Result<()> {
    write_head(out, timeline, terminal)?;
    let layout = Layout::new(timeline, terminal);
    let (of_start, later): (Vec<_>, Vec<_>) =
        timeline.entries.iter().partition(|entry| entry.start_unix_nano < layout.end_ns);
    let (short, shown): (Vec<_>, Vec<_>) = of_start.into_iter().partition(|entry| !all && layout.is_short(entry));
    layout.write_scale(out)?;
    for entry in shown {
        layout.write_entry(out, entry)?;
    }
    write_short(out, &short)?;
    if !later.is_empty() {
        writeln!(out, "\nafter the start")?;
        for entry in later {
            layout.write_later(out, entry)?;
        }
    }
    Ok(())
}

fn write_head(out: &mut impl Write, timeline: &PodTimeline, terminal: &Terminal) -> io::Result<()> {
    let pod = &timeline.summary;
    let state = crate::cli::pods::state(pod.state);
    let style = match pod.state {
        PodState::Failed => AnsiColor::Red.on_default(),
        PodState::Starting => AnsiColor::Yellow.on_default(),
        PodState::Started => AnsiColor::Green.on_default(),
        PodState::Terminating | PodState::Gone => Style::new(),
    };
    writeln!(out, "pod      {}/{}", printable(&pod.namespace), printable(&pod.name))?;
    writeln!(out, "uid      {}", if pod.uid.is_empty() { "unknown".to_owned() } else { printable(&pod.uid) })?;
    writeln!(out, "state    {}", paint(state, style, terminal.colours))?;
    writeln!(out, "started  {}", printable(&pod.started_at))?;
    let so_far = if pod.state == PodState::Starting { " so far" } else { "" };
    let accounted = ratio(pod.accounted_ratio);
    writeln!(out, "took     {}{so_far}, {accounted} accounted for", seconds(pod.duration_seconds))?;
    writeln!(out)
}

/// The short ones that have no line of their own.
fn write_short(out: &mut impl Write, short: &[&Entry]) -> io::Result<()> {
    let (gaps, steps): (Vec<&Entry>, Vec<&Entry>) = short.iter().partition(|entry| entry.kind == EntryKind::Gap);
    if short.is_empty() {
        return Ok(());
    }
    let gap_ns = gaps.iter().map(|entry| length_ns(entry)).sum();
    let mut parts = Vec::new();
    if !gaps.is_empty() {
        parts.push(format!("{} of {} in all", count(gaps.len(), "shorter gap"), nanoseconds(gap_ns)));
    }
    if !steps.is_empty() {
        parts.push(count(steps.len(), "shorter inner step"));
    }
    writeln!(out, "not shown: {} (--all shows them)", parts.join(", "))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Where things go on a line.
struct Layout {
    begin_ns: u64,
    /// End of the start.
    end_ns: u64,
    bar_columns: usize,
    name_columns: usize,
    colours: bool,
}

impl Layout {
    fn new(timeline: &PodTimeline, terminal: &Terminal) -> Self {
        let fixed = BETWEEN + 1 + DURATION_COLUMNS;
        let name_columns = (terminal.width * 2 / 3).saturating_sub(fixed).min(MAX_NAME_COLUMNS);
        let begin_ns = begin_ns(timeline);
        let whole_ns = (timeline.summary.duration_seconds * 1e9).round() as u64;
        Self {
            begin_ns,
            end_ns: begin_ns + whole_ns.max(1),
            bar_columns: terminal.width - fixed - name_columns,
            name_columns,
            colours: terminal.colours,
        }
    }

    fn is_short(&self, entry: &Entry) -> bool {
        let may_hide = entry.kind == EntryKind::Gap || entry.depth >= 2;
        may_hide && !is_set(entry, "error") && length_ns(entry) < (self.end_ns - self.begin_ns) / SHORT_PART
    }

    fn write_scale(&self, out: &mut impl Write) -> io::Result<()> {
        let whole = nanoseconds(self.end_ns - self.begin_ns);
        writeln!(out, "0{whole:>width$}", width = self.bar_columns - 1)
    }

    fn write_entry(&self, out: &mut impl Write, entry: &Entry) -> io::Result<()> {
        let bar = self.bar(entry);
        let indent = 2 * entry.depth as usize;
        let name = fit(&format!("{:indent$}{}", "", title(entry)), self.name_columns);
        let duration = nanoseconds(length_ns(entry));
        let (bar, style) = (bar, style(entry));
        writeln!(
            out,
            "{}{:BETWEEN$}{name:<width$} {duration:>DURATION_COLUMNS$}",
            paint(&bar, style, self.colours),
            "",
            width = self.name_columns
        )?;
        let room = self.name_columns + 1 + DURATION_COLUMNS - indent - 2;
        for line in wrap(&details(entry), room) {
            writeln!(out, "{:before$}{line}", "", before = self.bar_columns + BETWEEN + indent + 2)?;
        }
        Ok(())
    }

    /// Nothing after the start is drawn against its scale; how long after its end says more.
    fn write_later(&self, out: &mut impl Write, entry: &Entry) -> io::Result<()> {
        let later = format!("+{}", nanoseconds(entry.start_unix_nano - self.end_ns));
        let indent = 2 * entry.depth as usize;
        let name = fit(&format!("{:indent$}{}", "", title(entry)), self.name_columns);
        let duration = nanoseconds(length_ns(entry));
        let width = self.name_columns;
        let before = self.bar_columns;
        writeln!(out, "{later:>before$}{:BETWEEN$}{name:<width$} {duration:>DURATION_COLUMNS$}", "")
    }

    /// At least one cell, however short the entry.
    fn bar(&self, entry: &Entry) -> String {
        let columns = self.bar_columns as u128;
        let whole_ns = u128::from(self.end_ns - self.begin_ns);
        let since_begin = |ns: u64| u128::from(ns.clamp(self.begin_ns, self.end_ns) - self.begin_ns);
        let from = (since_begin(entry.start_unix_nano) * columns / whole_ns).min(columns - 1);
        let to = (since_begin(entry.end_unix_nano) * columns).div_ceil(whole_ns).clamp(from + 1, columns);
        let cell = match entry.kind {
            EntryKind::Sync => '░',
            EntryKind::Wait => '▒',
            EntryKind::Gap => '·',
            EntryKind::Exec => '▓',
            EntryKind::Cri | EntryKind::Csi | EntryKind::Dra | EntryKind::Device => '█',
        };
        (0..columns).map(|column| if (from..to).contains(&column) { cell } else { ' ' }).collect()
    }
}

fn begin_ns(timeline: &PodTimeline) -> u64 {
    let started_at = timeline.summary.started_at.parse::<jiff::Timestamp>().ok();
    let first = || timeline.entries.iter().map(|entry| entry.start_unix_nano).min();
    started_at.and_then(|time| u64::try_from(time.as_nanosecond()).ok()).or_else(first).unwrap_or(0)
}

fn title(entry: &Entry) -> String {
    let name = printable(short_name(&entry.name));
    match entry.kind {
        EntryKind::Gap => "gap".to_owned(),
        EntryKind::Wait => "wait".to_owned(),
        EntryKind::Csi => format!("csi {name}"),
        EntryKind::Dra => format!("dra {name}"),
        EntryKind::Device => format!("device {name}"),
        EntryKind::Cri => {
            // Inside of a call there are services of many kinds: `Task/Create`.
            let name = if entry.depth >= 2 { printable(service_and_method(&entry.name)) } else { name };
            match text(entry, "container_name") {
                Some(container) => format!("{name} {}", printable(container)),
                None => name,
            }
        }
        EntryKind::Sync | EntryKind::Exec => name,
    }
}

/// `Task/Create` of `containerd.task.v3.Task/Create`; other names as they are.
fn service_and_method(name: &str) -> &str {
    let package_end = name.split_once('/').and_then(|(service, _)| service.rfind('.'));
    package_end.map_or(name, |dot| &name[dot + 1..])
}

/// What stands beneath an entry, in pieces that lines break between.
fn details(entry: &Entry) -> Vec<String> {
    let mut details = Vec::new();
    match entry.kind {
        EntryKind::Gap => {
            let beside = |key, preposition| {
                text(entry, key).map(|name| format!("{preposition} {}", printable(short_name(name))))
            };
            details.extend(beside("after", "after"));
            details.extend(beside("before", "before"));
        }
        EntryKind::Wait => {
            let pod = text(entry, "pod").map_or_else(|| "an unknown pod".to_owned(), printable);
            details.push(format!("for the image pull of {pod}"));
        }
        _ => {}
    }
    for (key, label) in [
        ("request_wait_ns", "request wait"),
        ("handling_ns", "handling"),
        ("response_send_ns", "response send"),
        ("response_wait_ns", "response wait"),
        ("client_overhead_ns", "client overhead"),
    ] {
        if let Some(ns) = entry.attributes.get(key).and_then(Value::as_u64).filter(|ns| *ns > 0) {
            details.push(format!("{label} {}", nanoseconds(ns)));
        }
    }
    if let Some(image) = text(entry, "image").filter(|_| entry.kind == EntryKind::Wait || entry.depth <= 1) {
        details.push(format!("image {}", printable(image)));
    }
    match entry.attributes.get("status").and_then(Value::as_u64) {
        Some(status) if status != 0 => details.push(format!("failed with gRPC status {status}")),
        _ if is_set(entry, "error") => details.push(failure(entry)),
        _ => {}
    }
    if is_set(entry, "running") {
        details.push("still running".to_owned());
    }
    details
}

/// A process tells how it failed.
fn failure(entry: &Entry) -> String {
    let number = |key| entry.attributes.get(key).and_then(Value::as_u64);
    match (number("exit_code"), number("signal")) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

fn style(entry: &Entry) -> Style {
    if is_set(entry, "error") {
        return AnsiColor::Red.on_default();
    }
    match entry.kind {
        EntryKind::Sync => Style::new().dimmed(),
        EntryKind::Cri => AnsiColor::Blue.on_default(),
        EntryKind::Csi | EntryKind::Dra | EntryKind::Device => AnsiColor::Magenta.on_default(),
        EntryKind::Exec => AnsiColor::Cyan.on_default(),
        EntryKind::Wait | EntryKind::Gap => AnsiColor::Yellow.on_default(),
    }
}

fn paint(text: &str, style: Style, colours: bool) -> String {
    if colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Lines of at most `width` characters, broken between pieces; a longer piece (an image's digest) is broken within.
fn wrap(pieces: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        let columns = |text: &str| text.chars().count();
        match lines.last_mut() {
            Some(line) if columns(line) + columns(BETWEEN_DETAILS) + columns(piece) <= width => {
                line.push_str(BETWEEN_DETAILS);
                line.push_str(piece);
            }
            _ => {
                let characters: Vec<_> = piece.chars().collect();
                lines.extend(characters.chunks(width).map(|line| line.iter().collect::<String>()));
            }
        }
    }
    lines
}

fn text<'e>(entry: &'e Entry, key: &str) -> Option<&'e str> {
    entry.attributes.get(key).and_then(Value::as_str)
}

fn is_set(entry: &Entry, key: &str) -> bool {
    entry.attributes.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn length_ns(entry: &Entry) -> u64 {
    entry.end_unix_nano.saturating_sub(entry.start_unix_nano)
}
