//! A passive HTTP/2 and HPACK reader: it watches a connection between two others and never answers.
//!
//! Everything here is pure: bytes in, values out, no clock, no I/O. Unlike an endpoint, an observer may have joined late
//! or have missed bytes, so three outcomes are kept apart everywhere: *need more* (not an error), *malformed* (the sender
//! broke the protocol) and *lost track* (bytes passed unseen). A header field that refers to what was said before the
//! observer joined is a value ([`Octets::Unknown`]), not an error.
//!
//! ```text
//!   bytes ──► frame::FrameReader ──► HeaderBlocks ──► hpack::Decoder ──► fields
//!                │                                        ▲ learn(entry, name, value)
//!                └── DATA, RST_STREAM, GOAWAY, SETTINGS    └ what the observer found out otherwise
//!
//!   connection::Reader does all of this for the two directions of a connection;
//!   resync finds a frame boundary in a stream that was joined anywhere.
//! ```
//!
//! Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC's PROTOCOL-HTTP2.md.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod blocks;
pub mod connection;
pub mod frame;
pub mod grpc_timeout;
pub mod hpack;
pub mod limits;
pub mod resync;

pub use blocks::{BlockError, HeaderBlock, HeaderBlocks};
pub use hpack::{Decoder, EntryId, Exactness, Field, HeaderList, Octets};
