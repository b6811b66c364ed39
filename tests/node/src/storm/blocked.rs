//! Threads that are blocked in reads and in writes while a storm goes on: half of them on a watched path, half elsewhere.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::process::{Message, tell};

/// Connection preface, empty SETTINGS (RFC 9113 §3.4, §6.5).
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// PING (RFC 9113 §6.7).
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0storming";
const PINGS_PER_WRITE: usize = 200;
/// A blocked thread needs next to none.
const STACK_BYTES: usize = 64 << 10;

/// The blocked process's part of the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct BlockedArguments {
    /// A watched path to listen on
    pub socket: PathBuf,
    /// So many threads block in reads, and as many in writes
    pub threads: usize,
}

/// Blocks the threads until standard input ends.
///
/// # Errors
/// When sockets or threads cannot be made.
pub fn block(arguments: &BlockedArguments) -> Result<()> {
    let listener =
        UnixListener::bind(&arguments.socket).with_context(|| format!("listen on {}", arguments.socket.display()))?;
    let mut idle = Vec::new(); // ends that nobody writes to or reads from
    for i in 0..arguments.threads {
        for writes in [false, true] {
            let (busy, other) = if i % 2 == 0 {
                connected(&arguments.socket, &listener)?
            } else {
                UnixStream::pair().context("make a pair of sockets")?
            };
            idle.push(other);
            let work = move || if writes { write(busy) } else { read(busy) };
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).context("start a thread to block")?;
        }
    }
    tell(&Message::Ready)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn connected(path: &Path, listener: &UnixListener) -> Result<(UnixStream, UnixStream)> {
    let client = UnixStream::connect(path).context("connect to the watched path")?;
    Ok((client, listener.accept().context("accept on the watched path")?.0))
}

/// Nothing ever comes.
fn read(mut stream: UnixStream) {
    let _ = stream.read(&mut [0; 64]);
}

/// Writes sound HTTP/2 until the socket's buffer is full and the write blocks for good.
fn write(mut stream: UnixStream) {
    let pings = PING.repeat(PINGS_PER_WRITE);
    let mut written = stream.write_all(BEGINNING);
    while written.is_ok() {
        written = stream.write_all(&pings);
    }
}
