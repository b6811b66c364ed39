//! Minimal protobuf messages of the Kubernetes node interfaces: only the fields that spanlet reads, by their published
//! numbers. Unknown fields are skipped, so newer peers decode as well.

pub mod cri;
pub mod pod_resources;
