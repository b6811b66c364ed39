//! The documented file of all defaults, from the one definition of the keys.

use std::fmt::Write as _;

use super::Config;
use super::keys::SECTIONS;

/// Widest line of comment.
const WIDTH: usize = 100;

/// Every key with its default and what it is for, as YAML that reads back to the defaults.
pub fn default_file() -> String {
    let defaults = Config::default();
    let mut text = String::from("# Every key of spanlet with its default. Sizes: 16MiB, 64kB. Times: 200ms, 5s, 1m.\n");
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, "", section.comment);
        writeln!(text, "{}:", section.name).expect("writing to a String does not fail");
        for key in section.keys {
            comment(&mut text, "  ", key.comment);
            let value = (key.write)(&defaults);
            let space = if value.starts_with('\n') { "" } else { " " };
            writeln!(text, "  {}:{space}{value}", key.name).expect("writing to a String does not fail");
        }
    }
    text
}

fn comment(text: &mut String, indent: &str, words: &str) {
    let mut line = format!("{indent}#");
    for word in words.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = format!("{indent}#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
