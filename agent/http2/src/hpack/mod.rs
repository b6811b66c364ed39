//! HPACK (RFC 7541) for an observer: a decoder that can join a connection late.
//!
//! ```text
//!              first octet                late(): table unknown
//!   new() ──► Exact ◄──────────────────── Late ◄─────────────┐
//!               │      every entry that      │                │ restart_late()
//!               │      can be meant is known │                │
//!               └── malformed block, lose() ─┴──► Lost ───────┘
//! ```

mod decoder;
mod error;
mod field;
pub mod huffman;
mod integer;
mod static_table;
mod table;

pub use decoder::{Counters, Decoder, Exactness};
pub use error::{DecodeError, Malformed};
pub use field::{EntryId, Field, HeaderList, Octets};
