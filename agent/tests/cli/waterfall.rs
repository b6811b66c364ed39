//! What `spanlet pod` draws, to the character.

use spanlet::cli::render::{Terminal, waterfall};

use crate::timelines::slow_pull;

fn drawn(width: usize, colours: bool, all: bool) -> String {
    let mut out = Vec::new();
    let terminal = Terminal { width, colours, is_terminal: colours };
    waterfall::write(&mut out, &slow_pull(), &terminal, all).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn narrow() {
    println!("{}", drawn(80, false, false));
    println!("{}", drawn(120, false, true));
}
