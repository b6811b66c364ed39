//! What the tests share: recorded requests, random ones, and a second reader of the wire format.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod recordings;
pub mod requests;
pub mod tree;
