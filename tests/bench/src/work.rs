//! What is measured: units of work on sockets whose two ends are held by one thread, so that no switch between threads is in it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Result;
use spanlet_node::http2::{self, END_STREAM, indexed_literal};

/// A usual small message.
const MESSAGE_BYTES: usize = 200;

/// Both ends of a watched connection that carries gRPC calls over HTTP/2.
#[derive(Debug)]
pub struct Calls {
    client: UnixStream,
    server: UnixStream,
    stream: u32,
    buffer: Vec<u8>,
    /// How the trace's id ends, so that no two calls have the same.
    call: u32,
}

impl Calls {
    /// Connects to a listener at `path`, which is made and is to be watched.
    pub fn connect(path: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path); // of the turn before
        let listener = UnixListener::bind(path)?;
        let mut client = UnixStream::connect(path)?;
        let (server, _) = listener.accept()?;
        client.write_all(&http2::preface())?;
        let mut calls = Self { client, server, stream: 1, buffer: vec![0; 64 << 10], call: 0 };
        let read = calls.server.read(&mut calls.buffer)?;
        anyhow::ensure!(read == 33, "the preface came in parts");
        Ok(calls)
    }

    /// A `ContainerStatus` as kubelet and containerd make it, in the sizes of recordings: HEADERS and DATA in one write, the answer
    /// in another (131 of 135 and 133 of 141 in `k134-c17`).
    pub fn call(&mut self) -> Result<()> {
        let request = self.request().concat();
        self.client.write_all(&request)?;
        self.answer()
    }

    /// The same as a tonic client makes it: HEADERS and DATA in a write each.
    pub fn call_in_two_writes(&mut self) -> Result<()> {
        let [headers, data] = self.request();
        self.client.write_all(&headers)?;
        self.client.write_all(&data)?;
        self.answer()
    }

    fn request(&mut self) -> [Vec<u8>; 2] {
        self.call += 1;
        let headers = request_headers(self.call);
        let id: String = std::iter::repeat_n("0123456789abcdef", 4).collect();
        let data = message(&[&[0x0a, id.len() as u8], id.as_bytes()].concat());
        [http2::headers(0, self.stream, &headers), http2::data(END_STREAM, self.stream, &data)]
    }

    fn answer(&mut self) -> Result<()> {
        self.server.read(&mut self.buffer).map(drop)?;
        let status = message(&[&[0x0a, 0xbd, 0x03][..], &[b'a'; 445]].concat()); // a nested message
        let answer = [
            http2::headers(0, self.stream, &answer_headers(self.call)),
            http2::data(0, self.stream, &status),
            http2::headers(END_STREAM, self.stream, &trailers(self.call)),
        ];
        self.server.write_all(&answer.concat())?;
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

/// A length-prefixed gRPC message, uncompressed.
fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// What kubelet's client sends with a call: the first of a connection brings the names and values, the others refer to them and
/// bring their own `traceparent`. Blocks of kubelet have 50 bytes, the tenth of them with the most 82, the largest 163.
fn request_headers(call: u32) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let traceparent = format!("00-0af7651916cd43dd8448eb21{call:08x}-b7ad6b7169203331-01");
    if call == 1 {
        block.extend(indexed_literal("traceparent", &traceparent));
        block.extend(indexed_literal(":path", "/runtime.v1.RuntimeService/ContainerStatus"));
        block.extend(indexed_literal(":authority", "localhost"));
        block.extend(indexed_literal("content-type", "application/grpc"));
    } else {
        block.extend([0xc0, 0xbf, 0xbe]); // indexed, newest first: :path, :authority, content-type
        block.extend([0x0f, 65 - 15, traceparent.len() as u8]); // a literal that is not indexed, its name is (RFC 7541 §6.2.2)
        block.extend(traceparent.bytes());
    }
    block
}

/// What containerd answers with, in two bytes after the first time.
fn answer_headers(call: u32) -> Vec<u8> {
    let mut block = vec![0x88]; // :status 200
    block.extend(if call == 1 { indexed_literal("content-type", "application/grpc") } else { vec![0xc0] });
    block
}

fn trailers(call: u32) -> Vec<u8> {
    if call == 1 {
        return [indexed_literal("grpc-status", "0"), indexed_literal("grpc-message", "")].concat();
    }
    vec![0xbf, 0xbe]
}
