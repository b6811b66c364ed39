//! A Rust file as flat tokens with line numbers, without comments and without what is compiled for tests only.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One file of the repository.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the repository.
    pub(super) path: PathBuf,
    pub(super) tokens: Vec<Token>,
    /// Lines, comments included, tests not.
    pub(super) line_count: usize,
    /// Says that a program wrote it (`@generated` in one of its first lines).
    pub(super) is_generated: bool,
}

/// A word, a punctuation character, a bracket or a literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Source {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let at = |error: proc_macro2::LexError| anyhow!("{}:{}: {error}", path.display(), error.span().start().line);
        let stream: TokenStream = text.parse().map_err(at)?;
        let mut flat = Flat::default();
        flat.take(stream);
        Ok(Self {
            path: path.to_owned(),
            tokens: flat.tokens,
            line_count: text.lines().count() - flat.test_line_count,
            is_generated: text.lines().take(10).any(|line| line.contains("@generated")),
        })
    }

    /// Whether the whole file is a test: of a `tests` folder or a module named so.
    pub(super) fn is_test(&self) -> bool {
        let is_harness = self.path.starts_with("tests"); // whose crates are tests/NAME/
        let inner = self.path.components().skip(if is_harness { 2 } else { 0 });
        inner.into_iter().any(|component| match component {
            Component::Normal(name) => ["tests", "tests.rs", "benches"].iter().any(|test| name == *test),
            _ => false,
        })
    }

    /// Whether the tokens from `index` on are these.
    pub(super) fn has(&self, index: usize, texts: &[&str]) -> bool {
        let tokens = self.tokens.get(index..index + texts.len());
        tokens.is_some_and(|tokens| tokens.iter().zip(texts).all(|(token, text)| token.text == *text))
    }

    /// Index of the bracket that closes the one at `open`.
    pub(super) fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (index, token) in self.tokens.iter().enumerate().skip(open) {
            match token.text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return index;
            }
        }
        unreachable!("a token stream has balanced brackets")
    }
}

#[derive(Default)]
struct Flat {
    tokens: Vec<Token>,
    test_line_count: usize,
}

impl Flat {
    fn take(&mut self, stream: TokenStream) {
        let trees: Vec<_> = stream.into_iter().collect();
        let mut index = 0;
        while index < trees.len() {
            if is_test_attribute(&trees[index..]) {
                let end = item_end(&trees, index);
                let first_line = trees[index].span().start().line;
                self.test_line_count += trees[end - 1].span().end().line - first_line + 1;
                index = end;
            } else {
                self.take_tree(&trees[index]);
                index += 1;
            }
        }
    }

    fn take_tree(&mut self, tree: &TokenTree) {
        let TokenTree::Group(group) = tree else {
            return self.push(&tree.to_string(), tree.span().start().line);
        };
        let (open, close) = brackets(group);
        self.push(open, group.span_open().start().line);
        self.take(group.stream());
        self.push(close, group.span_close().end().line);
    }

    fn push(&mut self, text: &str, line: usize) {
        if !text.is_empty() {
            self.tokens.push(Token { text: text.to_owned(), line });
        }
    }
}

fn brackets(group: &Group) -> (&'static str, &'static str) {
    match group.delimiter() {
        Delimiter::Brace => ("{", "}"),
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// `#[cfg(test)]`, also with other conditions beside `test`, but not `#[cfg(not(test))]`.
fn is_test_attribute(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(mark), TokenTree::Group(attribute), ..] = trees else {
        return false;
    };
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    mark.as_char() == '#' && (text == "cfg(test)" || text.starts_with("cfg(all(test,"))
}

/// Index after the item that begins with the attribute at `start`: after its block or semicolon.
fn item_end(trees: &[TokenTree], start: usize) -> usize {
    let ends = |tree: &TokenTree| match tree {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    };
    trees[start..].iter().position(ends).map_or(trees.len(), |length| start + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let source = Source::parse(Path::new("a.rs"), text).expect("lexes");
        source.tokens.into_iter().map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_tests_are_left_out() {
        let text =
            "// unsafe\n/* crate::x */ fn a() {}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn b() { 'x'; }\n";
        assert_eq!(words(text), "fn a ( ) { } fn b ( ) { 'x' ; }");
        let source = Source::parse(Path::new("a.rs"), text).expect("lexes");
        assert_eq!(source.line_count, 3);
    }

    #[test]
    fn what_is_compiled_without_tests_stays() {
        assert_eq!(words("#[cfg(not(test))] fn a() {}"), "# [ cfg ( not ( test ) ) ] fn a ( ) { }");
        assert_eq!(words("#[cfg(all(test, unix))] use a::b; fn c() {}"), "fn c ( ) { }");
    }

    #[test]
    fn strings_hide_their_content() {
        assert_eq!(words("f(\"crate::x\", r#\"unsafe \"#)"), "f ( \"crate::x\" , r#\"unsafe \"# )");
    }

    #[test]
    fn test_files_are_known_by_their_place() {
        let is_test = |path| Source::parse(Path::new(path), "").expect("lexes").is_test();
        assert!(is_test("agent/tests/cli.rs"));
        assert!(is_test("agent/src/call/tests.rs"));
        assert!(is_test("tests/e2e/tests/cold.rs"));
        assert!(!is_test("tests/node/src/lib.rs"));
        assert!(!is_test("agent/src/call.rs"));
    }

    #[test]
    fn broken_source_is_an_error_with_its_line() {
        let error = Source::parse(Path::new("a.rs"), "fn a() {\n").expect_err("unbalanced");
        assert!(error.to_string().starts_with("a.rs:"), "{error}");
    }
}
