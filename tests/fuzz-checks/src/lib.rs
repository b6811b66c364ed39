//! What each fuzz target does with its input, as plain functions: libFuzzer calls them by way of `tests/fuzz/targets`, and
//! `tests/corpus.rs` runs the committed inputs and mutations of them through the same functions on every `cargo xtask test`.
//!
//! Each function panics when a rule is broken that must hold for any input; it never does otherwise.

#![forbid(unsafe_code)]

mod connection;
mod frame;
mod hpack;
mod input;
mod record;

pub use connection::connection;
pub use frame::frame;
pub use hpack::hpack;
pub use record::{RecordInput, TimeStep, record, record_up_to};

/// A fuzz target: its name, which is also that of its corpus and of its program, and what it does with an input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 4] = [
    Target { name: "frame", check: frame },
    Target { name: "hpack", check: hpack },
    Target { name: "connection", check: connection },
    Target { name: "record", check: record },
];
