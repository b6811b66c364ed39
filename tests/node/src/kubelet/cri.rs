//! Messages of the CRI, compiled from `proto/cri.proto`.
#![allow(unreachable_pub, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
