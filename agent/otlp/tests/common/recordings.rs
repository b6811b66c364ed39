//! Recorded requests of a real node.
#![allow(dead_code, unreachable_pub, reason = "shared by tests and benches")]

use std::path::Path;

use bytes::Bytes;
use prost::encoding::decode_varint;

/// The OTLP of three recorded runs of a real node; see `tests/fixtures` of the workspace.
pub const RECORDINGS: [&str; 3] =
    ["cri/cri-conn-k134-c17-otlp.binpb", "otlp/k134-c17-api.binpb", "otlp/k134-c22-http.binpb"];

/// The requests of a recording: a file of varint-delimited `ExportTraceServiceRequest`s.
pub fn requests(name: &str) -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let mut file = Bytes::from(file);
    let mut requests = Vec::new();
    while !file.is_empty() {
        let len = decode_varint(&mut file).expect("a length prefix");
        requests.push(file.split_to(len as usize));
    }
    requests
}

/// The requests of all recordings.
pub fn all() -> Vec<Bytes> {
    RECORDINGS.iter().flat_map(|name| requests(name)).collect()
}
