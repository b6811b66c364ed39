//! What is measured: units of work on sockets whose two ends are held by one thread, so that no switch between threads is in it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Result;

/// A usual small message.
const MESSAGE_BYTES: usize = 200;

/// Both ends of a watched connection that carries gRPC calls over HTTP/2.
#[derive(Debug)]
pub struct Calls {
    client: UnixStream,
    server: UnixStream,
    stream: u32,
    buffer: Vec<u8>,
}

impl Calls {
    /// Connects to a listener at `path`, which is made and is to be watched.
    pub fn connect(path: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path); // of the turn before
        let listener = UnixListener::bind(path)?;
        let mut client = UnixStream::connect(path)?;
        let (server, _) = listener.accept()?;
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        client.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        let mut calls = Self { client, server, stream: 1, buffer: vec![0; 64 << 10] };
        let read = calls.server.read(&mut calls.buffer)?;
        anyhow::ensure!(read == 33, "the preface came in parts");
        Ok(calls)
    }

    /// One call as a tonic client makes it: HEADERS and DATA in a write each (kubelet's mostly come in one), read in one; the
    /// answer is written in one.
    pub fn call(&mut self) -> Result<()> {
        self.client.write_all(&frame(HEADERS, END_HEADERS, self.stream, &request_headers()))?;
        self.client.write_all(&frame(DATA, END_STREAM, self.stream, &message(30)))?;
        self.server.read(&mut self.buffer).map(drop)?;
        let mut answer = frame(HEADERS, END_HEADERS, self.stream, &[0x88]); // :status 200
        answer.extend(frame(DATA, 0, self.stream, &message(120)));
        answer.extend(frame(HEADERS, END_HEADERS | END_STREAM, self.stream, &literal("grpc-status", "0")));
        self.server.write_all(&answer)?;
        self.client.read(&mut self.buffer).map(drop)?;
        self.stream += 2;
        Ok(())
    }
}

/// One message over a unix socket that nobody watches.
#[derive(Debug)]
pub struct Unwatched {
    ends: (UnixStream, UnixStream),
}

impl Unwatched {
    pub fn connect() -> Result<Self> {
        Ok(Self { ends: UnixStream::pair()? })
    }

    pub fn message(&mut self) -> Result<()> {
        self.ends.0.write_all(&[7; MESSAGE_BYTES])?;
        self.ends.1.read_exact(&mut [0; MESSAGE_BYTES]).map_err(Into::into)
    }
}

/// One message over the loopback interface.
#[derive(Debug)]
pub struct Tcp {
    client: TcpStream,
    server: TcpStream,
}

impl Tcp {
    pub fn connect() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nodelay(true)?;
        Ok(Self { client, server: listener.accept()?.0 })
    }

    pub fn message(&mut self) -> Result<()> {
        self.client.write_all(&[7; MESSAGE_BYTES])?;
        self.server.read_exact(&mut [0; MESSAGE_BYTES]).map_err(Into::into)
    }
}

/// A system call that has nothing to do with sockets.
pub fn unrelated() -> Result<()> {
    let _ = rustix::process::getppid();
    Ok(())
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113 §4.1
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A length-prefixed gRPC message, uncompressed: one string field.
fn message(bytes: u8) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, bytes + 2, 0x0a, bytes];
    message.extend(std::iter::repeat_n(b'a', usize::from(bytes)));
    message
}

/// What kubelet's client sends with a call, 190 bytes; its blocks in recordings have at most 163.
fn request_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    block.extend(literal(":path", "/runtime.v1.RuntimeService/ContainerStatus"));
    block.extend(literal(":authority", "localhost"));
    block.extend(literal("content-type", "application/grpc"));
    block.extend(literal("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    block
}

/// RFC 7541 §6.2.2: a literal without indexing.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend(name.bytes());
    field.push(value.len() as u8);
    field.extend(value.bytes());
    field
}
