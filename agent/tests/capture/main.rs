//! Capture's user side against the recorded connections: ring records as the kernel programs write them, whole, with losses, and from
//! anywhere on.

mod account;
mod ends;
mod late;
mod loss;
mod programs;
mod recorded;
mod whole;
