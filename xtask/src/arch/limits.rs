//! Sizes: a file can be kept in mind, a function fits a screen, `main` only delegates.

use std::path::Path;

use super::Finding;
use super::source::Source;

/// Lines of a file, tests left out.
const MAX_FILE_LINES: usize = 500;
/// Lines of a function, from `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 80;
/// Lines of the agent's `main.rs`: arguments, config, run, exit code.
const MAX_MAIN_LINES: usize = 80;

/// Files and functions that are too long. Generated files and tests may be as long as they are.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if source.is_generated || source.is_test() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let is_main = source.path == Path::new("agent/src/main.rs");
    let limit = if is_main { MAX_MAIN_LINES } else { MAX_FILE_LINES };
    if source.line_count > limit {
        let what = format!("{} lines without tests, {limit} are allowed", source.line_count);
        findings.push(Finding::new(&source.path, 1, what));
    }
    for function in functions(source).filter(|function| function.line_count > MAX_FUNCTION_LINES) {
        let what = format!("`{}` has {} lines, {MAX_FUNCTION_LINES} are allowed", function.name, function.line_count);
        findings.push(Finding::new(&source.path, function.line, what));
    }
    findings
}

/// A function with a body.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) line: usize,
    pub(super) line_count: usize,
    /// Indices of the tokens from `fn` to the closing brace.
    pub(super) tokens: std::ops::RangeInclusive<usize>,
}

/// The functions of a file, inner ones and methods too.
pub(super) fn functions(source: &Source) -> impl Iterator<Item = Function<'_>> {
    let starts = source.tokens.iter().enumerate().filter(|(_, token)| token.text == "fn");
    starts.filter_map(|(start, token)| {
        let name = source.tokens.get(start + 1)?.text.as_str();
        if name == "(" {
            return None; // a type: fn(u8) -> u8
        }
        let open = body(source, start)?;
        let end = source.closing(open);
        let line_count = source.tokens[end].line - token.line + 1;
        Some(Function { name, line: token.line, line_count, tokens: start..=end })
    })
}

/// Index of the brace that opens the function's body; none for a declaration in a trait.
fn body(source: &Source, start: usize) -> Option<usize> {
    let mut index = start;
    loop {
        match source.tokens.get(index)?.text.as_str() {
            "{" => return Some(index),
            ";" => return None,
            "(" | "[" => index = source.closing(index) + 1,
            _ => index += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(Path::new(path), text).expect("lexes");
        check(&source).into_iter().map(|finding| finding.to_string()).collect()
    }

    fn lines(count: usize) -> String {
        "\n    x();".repeat(count)
    }

    #[test]
    fn a_function_may_fill_a_screen() {
        let text = |count| format!("trait T {{ fn declared(); }}\nfn long(f: fn(u8)) {{{}\n}}\n", lines(count));
        assert_eq!(findings("a.rs", &text(78)), Vec::<String>::new());
        assert_eq!(findings("a.rs", &text(79)), ["a.rs:2: `long` has 81 lines, 80 are allowed"]);
    }

    #[test]
    fn long_tests_and_generated_files_pass() {
        let long = format!("fn long() {{{}\n}}\n", lines(600));
        assert_eq!(findings("a.rs", &long).len(), 2);
        assert_eq!(findings("a.rs", &format!("// @generated\n{long}")), Vec::<String>::new());
        assert_eq!(findings("a.rs", &format!("#[cfg(test)] mod tests {{ {long} }}")), Vec::<String>::new());
        assert_eq!(findings("agent/tests/a.rs", &long), Vec::<String>::new());
    }

    #[test]
    fn comments_count_for_a_file() {
        assert_eq!(findings("a.rs", &"// line\n".repeat(500)), Vec::<String>::new());
        assert_eq!(findings("a.rs", &"// line\n".repeat(501)), ["a.rs:1: 501 lines without tests, 500 are allowed"]);
    }

    #[test]
    fn main_is_short() {
        let text = "// line\n".repeat(81);
        assert_eq!(
            findings("agent/src/main.rs", &text),
            ["agent/src/main.rs:1: 81 lines without tests, 80 are allowed"]
        );
    }
}
