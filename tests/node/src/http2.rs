//! Frames and header blocks made by hand, for connections of which a test or bench decides every byte.

use spanlet_http2::frame::CLIENT_PREFACE;
use spanlet_http2::frame::flag::END_HEADERS;
pub use spanlet_http2::frame::flag::END_STREAM;

/// What a client says first: the connection preface and empty SETTINGS (RFC 9113 §3.4).
pub fn preface() -> Vec<u8> {
    [&CLIENT_PREFACE[..], &frame(4, 0, 0, &[])].concat()
}

/// What [`request`] calls.
pub const METHOD: &str = "runtime.v1.RuntimeService/Version";
/// A message without a field, behind its prefix.
const EMPTY: &[u8] = &[0; 5];

/// A request. No header is put into a table, so that each stands for itself.
pub fn request(stream: u32, traceparent: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    block.extend(literal(":path", &format!("/{METHOD}")));
    block.extend(literal("traceparent", traceparent));
    [headers(0, stream, &block), data(END_STREAM, stream, EMPTY)].concat()
}

/// Its answer: OK.
pub fn answer(stream: u32) -> Vec<u8> {
    [
        headers(0, stream, &[0x88]), // :status 200
        data(0, stream, EMPTY),
        headers(END_STREAM, stream, &literal("grpc-status", "0")),
    ]
    .concat()
}

/// Another for each number.
pub fn traceparent(number: u32) -> String {
    format!("00-0af7651916cd43dd8448eb21{number:08x}-b7ad6b7169203331-01")
}

/// DATA.
pub fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(0, flags, stream, payload)
}

/// HEADERS that hold the whole block.
pub fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(1, flags | END_HEADERS, stream, block)
}

/// RFC 9113 §4.1
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal field that is not indexed (RFC 7541 §6.2.2); both strings are shorter than 127 bytes.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    field(0x00, name, value)
}

/// A literal field that is indexed (RFC 7541 §6.2.1); both strings are shorter than 127 bytes.
pub fn indexed_literal(name: &str, value: &str) -> Vec<u8> {
    field(0x40, name, value)
}

fn field(representation: u8, name: &str, value: &str) -> Vec<u8> {
    [&[representation, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}
