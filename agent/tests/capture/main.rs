//! Capture's user side against the recorded connections: ring records as the kernel programs write them, whole, with losses, and from
//! anywhere on.

mod account;
#[path = "../../http2/tests/support/encoder.rs"]
#[allow(dead_code, reason = "the tests of the decoder use more of it")]
mod encoder;
mod ends;
mod late;
mod loss;
mod made;
mod message;
mod programs;
mod recorded;
mod whole;
