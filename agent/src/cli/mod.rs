//! The command line: looks into the running agent of this node through its admin address.

pub mod calls;
pub mod client;
pub mod pod;
pub mod pods;
pub mod render;
pub mod top;

pub use client::Failure;
