//! What the tests share: recorded requests, random ones, a second reader of the wire format, and the comparison of what
//! this crate reads with what prost decodes.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod compare;
pub mod recordings;
pub mod requests;
pub mod tree;
