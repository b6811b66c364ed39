//! Which module of the agent may use which: stages do not know each other, `pipeline` wires them.

use std::path::Path;

use super::Finding;
use super::source::Source;

/// Modules and crates that a module may use, besides itself. A module that is not listed fails.
///
/// `spanlet_otlp` goes with `batch`, whose fields are its types.
const EDGES: &[(&str, &[&str])] = &[
    ("pod", &[]),
    ("api", &[]),
    ("budget", &[]),
    ("listen", &[]),
    ("call", &["pod"]),
    ("exec", &["pod"]),
    ("batch", &["spanlet_otlp", "call", "pod"]),
    ("config", &["call"]),
    ("observe", &["config", "api", "budget", "listen"]),
    ("receive", &["config", "observe", "batch", "budget", "listen", "spanlet_otlp"]),
    ("capture", &["config", "observe", "call", "exec", "spanlet_abi", "spanlet_http2", "spanlet_proto"]),
    ("correlate", &["config", "observe", "batch", "call", "exec", "spanlet_otlp"]),
    ("enrich", &["config", "observe", "batch", "call", "exec", "pod", "spanlet_otlp", "spanlet_proto"]),
    ("synthesize", &["config", "observe", "batch", "call", "exec", "pod", "spanlet_otlp"]),
    ("filter", &["config", "observe", "batch", "spanlet_otlp"]),
    ("export", &["config", "observe", "batch", "budget", "spanlet_otlp"]),
    ("record", &["config", "observe", "batch", "call", "exec", "pod", "api", "spanlet_otlp"]),
    ("cli", &["config", "api", "call"]),
    ("main", &["cli", "config", "observe", "pipeline"]), // observe: the log starts before the pipeline
];
/// The one module that knows all.
const WIRING: &str = "pipeline";
/// The doctor looks at what capture would do on this machine; nothing else of `cli` knows a stage.
const DOCTOR: (&str, &str) = ("agent/src/cli/doctor", "capture");
/// Our crates that a module names in paths.
const CRATES: [&str; 4] = ["spanlet_abi", "spanlet_http2", "spanlet_otlp", "spanlet_proto"];

/// Uses of modules and crates in one file of the agent that the table does not allow.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Some(module) = module_path(&source.path) else {
        return Vec::new();
    };
    let Some(name) = module.first() else {
        return Vec::new(); // lib.rs only lists the modules
    };
    if name == WIRING || source.is_test() {
        return Vec::new();
    }
    let Some((_, allowed)) = EDGES.iter().find(|(listed, _)| listed == name) else {
        let what = format!("module `{name}` is not in the table of allowed edges (xtask/src/arch/edges.rs)");
        return vec![Finding::new(&source.path, 1, what)];
    };
    let is_allowed = |target: &str| target == name || allowed.contains(&target) || is_doctor(&source.path, target);
    let uses = uses(source, module.len()).into_iter().filter(|(target, _)| !is_allowed(target));
    uses.map(|(target, line)| Finding::new(&source.path, line, format!("`{name}` may not use `{target}`"))).collect()
}

fn is_doctor(path: &Path, target: &str) -> bool {
    path.to_string_lossy().starts_with(DOCTOR.0) && target == DOCTOR.1
}

/// `[cli, pods]` for `agent/src/cli/pods.rs`; nothing for `lib.rs`; `None` for files of other crates.
fn module_path(path: &Path) -> Option<Vec<String>> {
    let inner = path.strip_prefix("agent/src").ok()?.with_extension("");
    let mut names: Vec<_> = inner.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod" || name == "lib") {
        names.pop();
    }
    Some(names)
}

/// Every top-level module and crate of ours that the file names, with the line.
fn uses(source: &Source, depth: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (index, token) in source.tokens.iter().enumerate() {
        let after_root = match token.text.as_str() {
            "crate" | "spanlet" => Some(index + 1),
            "super" if index == 0 || source.tokens[index - 1].text != ":" => after_supers(source, index, depth),
            name if CRATES.contains(&name) => {
                found.push((name.to_owned(), token.line));
                None
            }
            _ => None,
        };
        if let Some(next) = after_root.filter(|next| source.has(*next, &[":", ":"])) {
            found.extend(first_names(source, next + 2));
        }
    }
    found
}

/// Index after the `super`s from `index` on if they lead to the crate's root.
fn after_supers(source: &Source, index: usize, depth: usize) -> Option<usize> {
    let mut next = index + 1;
    let mut count = 1;
    while source.has(next, &[":", ":", "super"]) {
        next += 3;
        count += 1;
    }
    (count >= depth).then_some(next)
}

/// The first name of a path, or of each path in a `{…}` group. A name with a capital letter is no module.
fn first_names(source: &Source, index: usize) -> Vec<(String, usize)> {
    let starts: Vec<_> = if source.has(index, &["{"]) {
        let separates = |at: &usize| source.has(*at, &["{"]) && *at == index || source.has(*at, &[","]);
        let mut starts = Vec::new();
        let end = source.closing(index);
        let mut at = index;
        while at < end {
            if separates(&at) {
                starts.push(at + 1);
            }
            at = if at != index && source.has(at, &["{"]) { source.closing(at) + 1 } else { at + 1 };
        }
        starts
    } else {
        vec![index]
    };
    let names = starts.into_iter().filter_map(|start| source.tokens.get(start));
    let is_module = |text: &str| text == "*" || text.starts_with(|first: char| first.is_lowercase());
    names.filter(|token| is_module(&token.text)).map(|token| (token.text.clone(), token.line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(Path::new(path), text).expect("lexes");
        check(&source).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn allowed_edges_pass() {
        let table = [
            ("agent/src/batch.rs", "use spanlet_otlp::Span; use crate::call::Call;"),
            ("agent/src/receive/grpc.rs", "use super::Limits; use crate::{batch::Batch, config, observe::Metrics};"),
            ("agent/src/pipeline.rs", "use crate::{receive, capture, export};"),
            ("agent/src/main.rs", "use spanlet::{cli, config::Config, pipeline};"),
            ("agent/src/cli/doctor.rs", "use crate::capture::probe;"),
            ("agent/src/cli/doctor/kernel.rs", "use crate::capture::probe;"),
            ("agent/src/record/mod.rs", "mod timeline; fn f() { crate::api::Pod::new(self::timeline::x()) }"),
            ("agent/src/export/mod.rs", "// crate::capture\n#[cfg(test)] mod tests { use crate::receive::Receiver; }"),
            ("agent/src/lib.rs", "pub mod config; pub mod capture;"),
            ("agent/http2/src/lib.rs", "use crate::hpack::Decoder;"),
            ("agent/src/enrich/tests.rs", "use crate::record::Recorder;"),
        ];
        for (path, text) in table {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn other_edges_fail() {
        let table = [
            ("agent/src/receive/mod.rs", "\nuse crate::export::Exporter;", "2: `receive` may not use `export`"),
            ("agent/src/receive/mod.rs", "use super::export::Exporter;", "1: `receive` may not use `export`"),
            ("agent/src/receive/grpc.rs", "use super::super::capture;", "1: `receive` may not use `capture`"),
            ("agent/src/pod.rs", "fn f() { crate::call::name(); }", "1: `pod` may not use `call`"),
            ("agent/src/correlate/mod.rs", "use spanlet_http2::Frame;", "1: `correlate` may not use `spanlet_http2`"),
            ("agent/src/cli/pods.rs", "use crate::capture::probe;", "1: `cli` may not use `capture`"),
            ("agent/src/main.rs", "use spanlet::record::Recorder;", "1: `main` may not use `record`"),
            ("agent/src/config.rs", "use crate::*;", "1: `config` may not use `*`"),
            ("agent/src/record/mod.rs", "m! { crate::enrich::x }", "1: `record` may not use `enrich`"),
        ];
        for (path, text, expected) in table {
            assert_eq!(findings(path, text), [format!("{path}:{expected}")], "{text}");
        }
    }

    #[test]
    fn each_name_of_a_group_is_looked_at() {
        let text = "use crate::{\n  batch::{Batch, record::x},\n  capture::{self, y},\n  export,\n};";
        let found = findings("agent/src/receive/mod.rs", text);
        assert_eq!(
            found,
            [
                "agent/src/receive/mod.rs:3: `receive` may not use `capture`",
                "agent/src/receive/mod.rs:4: `receive` may not use `export`"
            ]
        );
    }

    #[test]
    fn a_new_module_must_be_listed() {
        let found = findings("agent/src/helpers.rs", "fn f() {}");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`helpers` is not in the table"), "{found:?}");
    }
}
