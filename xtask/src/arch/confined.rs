//! What may stand in few places only: unsafe code, environment variables, unbounded channels, the ring buffer.

use super::Finding;
use super::limits::{Function, functions};
use super::source::Source;

/// Loading programs, reading their maps and the kernel's side itself.
const UNSAFE_PLACES: [&str; 2] = ["agent/src/capture", "ebpf"];
/// Strings become types in `config`, to which the commands that load it hand the environment; how to draw is the
/// terminal's question.
const ENVIRONMENT_PLACES: [&str; 6] = [
    "agent/src/config.rs",
    "agent/src/config",
    "agent/src/main.rs",
    "agent/src/cli/config.rs",
    "agent/src/cli/doctor/mod.rs",
    "agent/src/cli/render",
];
const KERNEL_CODE: &str = "ebpf/programs/src";
/// aya's type of the map that events leave the kernel by.
const RING_BUFFER: &str = "RingBuf";

/// What stands where it may not, in one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_in = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
    for (index, token) in source.tokens.iter().enumerate() {
        let mut find = |what: &str| findings.push(Finding::new(&source.path, token.line, what.to_owned()));
        if token.text == "unsafe" && !is_in(&UNSAFE_PLACES) {
            find("unsafe code is confined to agent/src/capture and ebpf");
        }
        if reads_environment(source, index) && is_in(&["agent/src"]) && !is_in(&ENVIRONMENT_PLACES) {
            find("environment variables are read in agent/src/config only");
        }
        if makes_unbounded_channel(source, index) && !source.is_test() {
            find("unbounded channel");
        }
    }
    findings
}

/// Only one file of the kernel programs may touch the ring buffer, so that every loss is counted in one place; the file
/// that declares it does not touch it.
pub(super) fn check_ring_buffer(sources: &[Source]) -> Vec<Finding> {
    let kernel: Vec<_> = sources.iter().filter(|source| source.path.starts_with(KERNEL_CODE)).collect();
    let names: Vec<&str> = kernel.iter().flat_map(|source| ring_buffers(source)).collect();
    let users = kernel.iter().filter_map(|source| {
        let touches = |function: &Function<'_>| {
            let mut tokens = source.tokens[function.tokens.clone()].iter();
            tokens.any(|token| names.contains(&token.text.as_str()))
        };
        Some((source, functions(source).find(touches)?))
    });
    let users: Vec<_> = users.collect();
    let others = users.iter().skip(1).map(|(source, function)| {
        let first = users[0].0.path.display();
        let what = format!("`{}` touches the ring buffer, which is left to {first}", function.name);
        Finding::new(&source.path, function.line, what)
    });
    others.collect()
}

/// `env::var`, `env::vars`, `env::var_os`, or importing one of them.
fn reads_environment(source: &Source, index: usize) -> bool {
    if !source.has(index, &["env", ":", ":"]) {
        return false;
    }
    let end = if source.has(index + 3, &["{"]) { source.closing(index + 3) } else { index + 3 };
    let mut names = source.tokens[index + 3..].iter().take(end - index - 2);
    names.any(|token| matches!(token.text.as_str(), "var" | "vars" | "var_os" | "vars_os"))
}

/// `unbounded_channel`, `unbounded`, or a `channel` called without a bound.
fn makes_unbounded_channel(source: &Source, index: usize) -> bool {
    match source.tokens[index].text.as_str() {
        "unbounded_channel" | "unbounded" => true,
        "channel" => {
            let after = after_generics(source, index + 1);
            let is_definition = index > 0 && source.tokens[index - 1].text == "fn";
            let is_method = index > 0 && source.tokens[index - 1].text == ".";
            // A oneshot holds one value and a watch the newest; neither asks for a bound.
            let is_single = index >= 3 && source.tokens[index - 3].text == "oneshot";
            source.has(after, &["(", ")"]) && !is_definition && !is_method && !is_single
        }
        _ => false,
    }
}

/// Index after `::<…>`.
fn after_generics(source: &Source, index: usize) -> usize {
    if !source.has(index, &[":", ":", "<"]) {
        return index;
    }
    let mut depth = 0;
    for (at, token) in source.tokens.iter().enumerate().skip(index + 2) {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    index
}

/// Names of the statics whose type is the ring buffer.
fn ring_buffers(source: &Source) -> Vec<&str> {
    let statics = source.tokens.iter().enumerate().filter(|(_, token)| token.text == "static");
    let named = statics.filter_map(|(index, _)| {
        let name = if source.has(index + 1, &["mut"]) { index + 2 } else { index + 1 };
        let declared = source.tokens[name..].iter().take_while(|token| !matches!(token.text.as_str(), "=" | ";"));
        let is_ring = declared.clone().any(|token| token.text == RING_BUFFER);
        is_ring.then(|| source.tokens[name].text.as_str())
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::parse(Path::new(path), text).expect("lexes")
    }

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&source(path, text)).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn what_stands_in_its_place_passes() {
        let table = [
            ("agent/src/capture/map.rs", "fn f() { unsafe { g() } }"),
            ("ebpf/programs/src/main.rs", "unsafe fn f() {}"),
            ("agent/src/config.rs", "use std::env; fn f() { env::var_os(\"A\"); }"),
            ("xtask/src/sh.rs", "fn f() { std::env::var_os(\"A\"); }"),
            ("agent/src/cli/mod.rs", "#![forbid(unsafe_code)] fn f() { std::env::args(); } // unsafe"),
            ("agent/src/pipeline.rs", "fn f() { let (a, b) = mpsc::channel::<Vec<u8>>(16); oneshot::channel(); }"),
            ("tests/node/src/lib.rs", "fn channel() {} fn f(e: &Endpoint) { e.channel() }"),
        ];
        for (path, text) in table {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn what_stands_elsewhere_fails() {
        let unsafe_code = "unsafe code is confined to agent/src/capture and ebpf";
        let environment = "environment variables are read in agent/src/config only";
        let table = [
            ("agent/src/record/mod.rs", "fn f() { unsafe { g() } }", unsafe_code),
            ("tests/node/src/lib.rs", "unsafe impl Send for X {}", unsafe_code),
            ("agent/src/export/mod.rs", "fn f() { std::env::var(\"A\"); }", environment),
            ("agent/src/export/mod.rs", "use std::env::{args, var};", environment),
            ("agent/src/pipeline.rs", "use tokio::sync::mpsc::unbounded_channel;", "unbounded channel"),
            ("agent/src/pipeline.rs", "fn f() { std::sync::mpsc::channel::<Vec<u8>>(); }", "unbounded channel"),
            ("xtask/src/sh.rs", "fn f() { channel(); }", "unbounded channel"),
        ];
        for (path, text, what) in table {
            assert_eq!(findings(path, text), [format!("{path}:1: {what}")], "{text}");
        }
    }

    #[test]
    fn one_file_may_touch_the_ring_buffer() {
        let map =
            || source("ebpf/programs/src/maps.rs", "pub static EVENTS: RingBuf = RingBuf::new(); static N: u8 = 0;");
        let emit =
            || source("ebpf/programs/src/emit.rs", "fn a() { EVENTS.reserve(1); N; }\nfn b() { EVENTS.output(); }");
        let user = source("agent/src/capture/ring.rs", "fn read() { EVENTS.next(); }");
        assert!(check_ring_buffer(&[map(), emit(), user]).is_empty());

        let walk = source("ebpf/programs/src/walk.rs", "fn w() { N; }\nfn hasty() { EVENTS.output(); }");
        let found = check_ring_buffer(&[emit(), map(), walk]);
        let found: Vec<_> = found.into_iter().map(|finding| finding.to_string()).collect();
        let expected = "ebpf/programs/src/walk.rs:2: `hasty` touches the ring buffer, which is left to \
                        ebpf/programs/src/emit.rs";
        assert_eq!(found, [expected]);
    }
}
