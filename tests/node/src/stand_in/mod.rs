//! Stand-ins for gRPC servers and clients of a node: plugins, a runtime, kubelet's own services.

mod client;
mod server;

pub use client::call;
pub use server::{Answers, Server};
