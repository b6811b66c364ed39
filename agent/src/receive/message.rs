//! Reads one request body into memory: within the size limit, within the memory budget, gzip or not.
//!
//! A body is decompressed while it arrives, so a bomb is refused at the first byte too many and its compressed form is
//! never held.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt as _;

use crate::budget::{Exhausted, Reservation};

/// A new message's buffer, when its size is not told beforehand.
const INITIAL_BYTES: usize = 16 << 10;

/// How a body or message is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("request is larger than {limit_bytes} bytes (receive.max_request_bytes)")]
    TooLarge { limit_bytes: usize },
    #[error(transparent)]
    NoMemory(#[from] Exhausted),
    #[error("gzip: {0}")]
    Gzip(io::Error),
    #[error("gRPC message frame: {0}")]
    Frame(&'static str),
    #[error("body ended early: {0}")]
    Body(String),
}

/// Reads a whole body, at most `limit_bytes` after decompression. `expected_bytes` is what its header promises.
pub(super) async fn read_body<B>(
    mut body: B,
    encoding: Encoding,
    expected_bytes: Option<usize>,
    limit_bytes: usize,
    reservation: Reservation,
) -> Result<(Bytes, Reservation), ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if encoding == Encoding::Identity && expected_bytes.is_some_and(|expected| expected > limit_bytes) {
        return Err(ReadError::TooLarge { limit_bytes });
    }
    let mut message = Message::new(encoding, expected_bytes, limit_bytes, reservation)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadError::Body(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            message.push(&data)?;
        }
    }
    message.finish()
}

/// Reads the one message of a unary gRPC request: a byte that says whether it is compressed, its length as 4 bytes,
/// the message.
pub(super) async fn read_grpc_message<B>(
    mut body: B,
    encoding: Encoding,
    limit_bytes: usize,
    reservation: Reservation,
) -> Result<(Bytes, Reservation), ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut prefix = Prefix::default();
    let mut reservation = Some(reservation);
    let mut message = None;
    let mut missing = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadError::Body(error.to_string()))?;
        let Ok(mut data) = frame.into_data() else { continue };
        if let Some(reservation) = reservation.take_if(|_| prefix.fill(&mut data)) {
            let (compressed, length) = prefix.read()?;
            let encoding = match (compressed, encoding) {
                (true, Encoding::Identity) => return Err(ReadError::Frame("compressed, but no grpc-encoding told")),
                (true, Encoding::Gzip) => Encoding::Gzip,
                (false, _) => Encoding::Identity,
            };
            if length > limit_bytes {
                return Err(ReadError::TooLarge { limit_bytes });
            }
            message = Some(Message::new(encoding, Some(length), limit_bytes, reservation)?);
            missing = length;
        }
        if let Some(message) = &mut message {
            missing = missing.checked_sub(data.len()).ok_or(ReadError::Frame("more than one message"))?;
            message.push(&data)?;
        }
    }
    match message {
        Some(message) if missing == 0 => message.finish(),
        _ => Err(ReadError::Frame("the message is cut short")),
    }
}

/// The five bytes before a gRPC message.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; 5],
    filled: usize,
}

impl Prefix {
    /// Takes what is missing from the front of `data`; true once it is whole.
    fn fill(&mut self, data: &mut Bytes) -> bool {
        let part = data.split_to(data.len().min(self.bytes.len() - self.filled));
        self.bytes[self.filled..self.filled + part.len()].copy_from_slice(&part);
        self.filled += part.len();
        self.filled == self.bytes.len()
    }

    fn read(&self) -> Result<(bool, usize), ReadError> {
        let [flag, length @ ..] = self.bytes;
        let compressed = match flag {
            0 => false,
            1 => true,
            _ => return Err(ReadError::Frame("the compressed flag is neither 0 nor 1")),
        };
        Ok((compressed, u32::from_be_bytes(length) as usize))
    }
}

/// A message that grows as its body arrives.
enum Message {
    Identity(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Message {
    fn new(
        encoding: Encoding,
        expected_bytes: Option<usize>,
        limit_bytes: usize,
        mut reservation: Reservation,
    ) -> Result<Self, ReadError> {
        let expected_bytes = expected_bytes.unwrap_or(INITIAL_BYTES).min(limit_bytes);
        reservation.grow_to(expected_bytes)?;
        let bounded = Bounded { bytes: Vec::with_capacity(expected_bytes), limit_bytes, reservation };
        Ok(match encoding {
            Encoding::Identity => Self::Identity(bounded),
            Encoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(bounded))),
        })
    }

    fn push(&mut self, data: &[u8]) -> Result<(), ReadError> {
        match self {
            Self::Identity(bounded) => bounded.extend(data),
            Self::Gzip(decoder) => decoder.write_all(data).map_err(read_error),
        }
    }

    fn finish(self) -> Result<(Bytes, Reservation), ReadError> {
        let Bounded { mut bytes, mut reservation, .. } = match self {
            Self::Identity(bounded) => bounded,
            // An empty body is a valid empty request, whatever its encoding header says.
            Self::Gzip(decoder) => decoder.finish().map_err(read_error)?,
        };
        bytes.shrink_to_fit();
        reservation.resize(bytes.len());
        Ok((Bytes::from(bytes), reservation))
    }
}

/// A buffer that reserves before it grows, and refuses to grow past its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit_bytes: usize,
    reservation: Reservation,
}

impl Bounded {
    fn extend(&mut self, data: &[u8]) -> Result<(), ReadError> {
        let length = self.bytes.len() + data.len();
        if length > self.limit_bytes {
            return Err(ReadError::TooLarge { limit_bytes: self.limit_bytes });
        }
        if length > self.bytes.capacity() {
            // Half as much again: fewer moves than by need, less waste than by doubling.
            let capacity = (length + length / 2).min(self.limit_bytes);
            self.reservation.grow_to(capacity)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.extend(data).map(|()| data.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes apart what [`Bounded`] put into an `io::Error`; anything else is the decoder's own.
fn read_error(error: io::Error) -> ReadError {
    error.downcast::<ReadError>().unwrap_or_else(ReadError::Gzip)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Budget;

    const LIMIT_BYTES: usize = 100_000;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[flag], &length.to_be_bytes()[..], message].concat()
    }

    fn in_chunks(data: &[u8], size: usize) -> impl http_body::Body<Data = Bytes, Error = io::Error> + Unpin {
        let chunks: Vec<_> =
            data.chunks(size.max(1)).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
        StreamBody::new(stream::iter(chunks))
    }

    fn grpc(data: &[u8], chunk: usize, encoding: Encoding, budget: &Budget) -> Result<(Bytes, Reservation), ReadError> {
        let reservation = budget.reserve(0).unwrap();
        let read = read_grpc_message(in_chunks(data, chunk), encoding, LIMIT_BYTES, reservation);
        futures_util::FutureExt::now_or_never(read).expect("every chunk is ready")
    }

    fn plain(data: &[u8], encoding: Encoding, budget: &Budget) -> Result<(Bytes, Reservation), ReadError> {
        let reservation = budget.reserve(0).unwrap();
        let read = read_body(in_chunks(data, 1_000), encoding, None, LIMIT_BYTES, reservation);
        futures_util::FutureExt::now_or_never(read).expect("every chunk is ready")
    }

    proptest! {
        #[test]
        fn message_arrives_whole_however_it_is_cut(
            message in proptest::collection::vec(any::<u8>(), 0..5_000),
            chunk in 1..6_000usize,
            compress in any::<bool>(),
        ) {
            let budget = Budget::new(1 << 20, 1 << 20);
            let wire = if compress { framed(1, &gzip(&message)) } else { framed(0, &message) };
            let (bytes, reservation) = grpc(&wire, chunk, Encoding::Gzip, &budget).unwrap();
            prop_assert_eq!(&bytes[..], &message[..]);
            drop(reservation);
            prop_assert_eq!(budget.held_bytes(), 0);
        }
    }

    #[test]
    fn limit_is_exact_and_counts_decompressed_bytes() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let fits = vec![7; LIMIT_BYTES];
        let over = vec![7; LIMIT_BYTES + 1];
        assert_eq!(plain(&gzip(&fits), Encoding::Gzip, &budget).unwrap().0.len(), LIMIT_BYTES);
        assert_eq!(plain(&fits, Encoding::Identity, &budget).unwrap().0.len(), LIMIT_BYTES);
        assert!(gzip(&over).len() < 1_000, "the compressed form is far below the limit");
        for (data, encoding) in [(gzip(&over), Encoding::Gzip), (over.clone(), Encoding::Identity)] {
            assert!(matches!(plain(&data, encoding, &budget), Err(ReadError::TooLarge { .. })));
        }
        assert!(matches!(grpc(&framed(0, &over), 9_999, Encoding::Gzip, &budget), Err(ReadError::TooLarge { .. })));
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn memory_is_reserved_before_it_is_used() {
        let budget = Budget::new(50_000, 50_000);
        let bomb = gzip(&vec![0; 90_000]);
        assert!(matches!(plain(&bomb, Encoding::Gzip, &budget), Err(ReadError::NoMemory(_))));
        assert!(matches!(
            grpc(&framed(0, &[0; 60_000]), 500, Encoding::Identity, &budget),
            Err(ReadError::NoMemory(_))
        ));
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn broken_frames_are_named() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let cases: [(&str, Vec<u8>, Encoding); 7] = [
            ("nothing", Vec::new(), Encoding::Identity),
            ("half a prefix", vec![0, 0], Encoding::Identity),
            ("cut short", framed(0, b"hello")[..8].to_vec(), Encoding::Identity),
            ("two messages", [framed(0, b"one"), framed(0, b"two")].concat(), Encoding::Identity),
            ("bad flag", framed(2, b"hello"), Encoding::Identity),
            ("no encoding told", framed(1, &gzip(b"hello")), Encoding::Identity),
            ("not gzip", framed(1, b"hello, this is not gzip"), Encoding::Gzip),
        ];
        for (name, wire, encoding) in cases {
            let error = grpc(&wire, 3, encoding, &budget).expect_err(name);
            assert!(matches!(error, ReadError::Frame(_) | ReadError::Gzip(_)), "{name}: {error}");
        }
    }

    #[test]
    fn gzip_cut_short_is_an_error() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let whole = gzip(b"hello, hello, hello");
        assert!(matches!(plain(&whole[..whole.len() - 9], Encoding::Gzip, &budget), Err(ReadError::Gzip(_))));
    }
}
