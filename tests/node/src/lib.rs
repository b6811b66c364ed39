//! What tests need of a node: a real container runtime with a stand-in kubelet, recordings of a real kubelet played again,
//! and an upstream that can fail in every way an upstream can.

pub mod kubelet;
mod raw;
pub mod runtime;
pub mod upstream;
