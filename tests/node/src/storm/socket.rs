//! A unix socket that is used in every way a program may use one: bytes go out and come in by several system calls, cut
//! where it hurts, by a seeded plan.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fastrand::Rng;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, send, sendmsg, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Go's gRPC gathers what it writes in a buffer of this size, which cuts frames wherever it is full.
const GATHERED_BYTES: usize = 32 << 10;
/// The longest of the writes that are cut to pieces: shorter than a frame's header and a little longer than a small frame.
const CHOPPED_BYTES: usize = 40;
/// Shortest and longest of the reads that do not take all they could.
const SHORT_READ_BYTES: std::ops::RangeInclusive<usize> = 200..=900;
/// A large write does not fit, so that the kernel accepts a part of it.
const SEND_BUFFER_BYTES: usize = 24 << 10;
/// System calls in a row that are made in one style.
const STYLE_RUN: std::ops::Range<u32> = 1..30;

#[derive(Debug, Clone, Copy)]
enum WriteStyle {
    Write,
    WriteVector,
    SendMessage,
    Gathered,
    Chopped,
}

#[derive(Debug, Clone, Copy)]
enum ReadStyle {
    Read,
    ReadVector,
    Receive,
    ReceiveMessage,
    Peeked,
    Short,
}

const WRITE_STYLES: [WriteStyle; 5] =
    [WriteStyle::Write, WriteStyle::WriteVector, WriteStyle::SendMessage, WriteStyle::Gathered, WriteStyle::Chopped];
const READ_STYLES: [ReadStyle; 6] = [
    ReadStyle::Read,
    ReadStyle::ReadVector,
    ReadStyle::Receive,
    ReadStyle::ReceiveMessage,
    ReadStyle::Peeked,
    ReadStyle::Short,
];

/// A style that stays for some system calls.
#[derive(Debug)]
struct Run<S> {
    style: S,
    left: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
    rng: Rng,
    writes: Run<WriteStyle>,
    reads: Run<ReadStyle>,
    /// What was taken but not written yet, from `gathered_from` on.
    gathered: Vec<u8>,
    gathered_from: usize,
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(stream: UnixStream, seed: u64) -> io::Result<Self> {
        sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?;
        Ok(Self {
            stream,
            rng: Rng::with_seed(seed),
            writes: Run { style: WriteStyle::Write, left: 0 },
            reads: Run { style: ReadStyle::Read, left: 0 },
            gathered: Vec::with_capacity(GATHERED_BYTES),
            gathered_from: 0,
        })
    }

    fn poll_write_call(
        &self,
        context: &mut Context<'_>,
        call: impl Fn(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let called = self.stream.try_io(Interest::WRITABLE, || Ok(call(self.stream.as_fd())?));
            match called {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Writes what was gathered.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gathered_from < self.gathered.len() {
            let rest = &self.gathered[self.gathered_from..];
            self.gathered_from += ready!(self.poll_write_call(context, |fd| rustix::io::write(fd, rest)))?;
        }
        self.gathered.clear();
        self.gathered_from = 0;
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, buffers: &[IoSlice<'_>]) -> usize {
        let before = self.gathered.len();
        for buffer in buffers {
            let room = GATHERED_BYTES - self.gathered.len();
            self.gathered.extend_from_slice(&buffer[..buffer.len().min(room)]);
        }
        self.gathered.len() - before
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let style = this.writes.next(&mut this.rng, &WRITE_STYLES);
        let gathers = matches!(style, WriteStyle::Gathered);
        if !gathers || this.gathered.len() == GATHERED_BYTES {
            ready!(this.poll_drain(context))?;
        }
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| buffer);
        match style {
            WriteStyle::Gathered => Poll::Ready(Ok(this.gather(buffers))),
            WriteStyle::Write => this.poll_write_call(context, |fd| rustix::io::write(fd, first)),
            WriteStyle::WriteVector => this.poll_write_call(context, |fd| rustix::io::writev(fd, buffers)),
            WriteStyle::SendMessage => this.poll_write_call(context, |fd| {
                sendmsg(fd, buffers, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
            }),
            WriteStyle::Chopped => {
                let piece = &first[..first.len().min(this.rng.usize(1..=CHOPPED_BYTES))];
                this.poll_write_call(context, |fd| send(fd, piece, SendFlags::NOSIGNAL))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let style = this.reads.next(&mut this.rng, &READ_STYLES);
        let unfilled = buffer.initialize_unfilled();
        let short = this.rng.usize(SHORT_READ_BYTES).min(unfilled.len());
        loop {
            ready!(this.stream.poll_read_ready(context))?;
            let fd = this.stream.as_fd();
            let called = this.stream.try_io(Interest::READABLE, || Ok(read(fd, style, unfilled, short)?));
            match called {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(bytes) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

fn read(fd: BorrowedFd<'_>, style: ReadStyle, buffer: &mut [u8], short: usize) -> Result<usize, Errno> {
    match style {
        ReadStyle::Read => rustix::io::read(fd, buffer),
        ReadStyle::Short => rustix::io::read(fd, &mut buffer[..short]),
        ReadStyle::ReadVector => {
            let (first, second) = buffer.split_at_mut(short);
            rustix::io::readv(fd, &mut [IoSliceMut::new(first), IoSliceMut::new(second)])
        }
        ReadStyle::Receive => recv(fd, buffer, RecvFlags::empty()).map(|(bytes, _)| bytes),
        ReadStyle::ReceiveMessage => {
            let (first, second) = buffer.split_at_mut(short);
            let mut parts = [IoSliceMut::new(first), IoSliceMut::new(second)];
            let mut nothing = RecvAncillaryBuffer::default();
            recvmsg(fd, &mut parts, &mut nothing, RecvFlags::empty()).map(|message| message.bytes)
        }
        ReadStyle::Peeked => {
            recv(fd, &mut *buffer, RecvFlags::PEEK)?;
            rustix::io::read(fd, buffer)
        }
    }
}

// === impl Run ===

impl<S: Copy> Run<S> {
    fn next(&mut self, rng: &mut Rng, styles: &[S]) -> S {
        if self.left == 0 {
            self.style = styles[rng.usize(..styles.len())];
            self.left = rng.u32(STYLE_RUN);
        }
        self.left -= 1;
        self.style
    }
}
