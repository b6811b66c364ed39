//! OTLP trace requests (`ExportTraceServiceRequest`, protobuf) as bytes: index, edit, merge, split, build.
//!
//! Spans travel as the bytes they came in. [`TraceRequest::parse`] checks a request in one pass and notes where its spans
//! are; [`Span`] and [`Resource`] read fields in place; [`Additions`] collects attributes and links, which
//! [`TraceRequest::encode`] appends to the messages they belong to. Everything else passes byte for byte in its original
//! order, fields this crate does not know included: of what came in, only the length prefixes of messages that grow change.
//!
//! ```text
//!  Bytes ──parse──► TraceRequest ──spans(), resource()──► views
//!                       │  ▲
//!                       │  └─ new ─ Additions ◄── span_str, span_int, span_link, resource_str …
//!                       └──encode(&Additions)──► Bytes ──merge, split──► Bytes
//! ```
//!
//! Of a singular field given more than once the last one counts, and an embedded message given more than once is merged,
//! as the protobuf encoding guide says ("Last One Wins"). Strings are not checked when parsing: an invalid one passes on
//! as it is and reads as its valid beginning.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod index;
mod limits;
mod schema;
mod wire;

mod view;

mod additions;
mod attribute;
mod encode;

pub mod build;
mod split;

pub use additions::{Additions, Shared};
pub use error::{Fault, ParseError};
pub use index::TraceRequest;
pub use limits::{MAX_ENTRIES, MAX_NESTING, MAX_REQUEST_BYTES};
pub use split::{Parts, merge, split};
pub use view::{AttributeKeys, Attributes, Event, Events, Link, Links, Resource, Span, SpanKind, Value};
