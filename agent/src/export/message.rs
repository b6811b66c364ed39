//! One request on its way upstream: merged, framed, compressed if wanted.

use std::io::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::queue::Chunk;
use crate::budget::Reservation;

/// A gRPC message starts with a flag (1 = compressed) and its length in 4 bytes.
const PREFIX_BYTES: usize = 5;

/// A framed request and what it takes. Cloning its frames for another try copies no payload.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: Vec<Bytes>,
    compressed: bool,
    reservation: Reservation,
}

impl Outgoing {
    /// Makes one request of `chunks`: concatenating encoded `ExportTraceServiceRequest`s merges them, because the
    /// message has only a repeated field. `None` if there are none.
    pub(super) fn merge(chunks: Vec<Chunk>) -> Option<Self> {
        let length: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let mut chunks = chunks.into_iter();
        let Chunk { bytes, mut reservation } = chunks.next()?;
        if chunks.len() == 0 {
            let frames = vec![Bytes::copy_from_slice(&prefix(false, length)), bytes];
            return Some(Self { frames, compressed: false, reservation });
        }
        let mut merged = BytesMut::with_capacity(PREFIX_BYTES + length);
        merged.put_slice(&prefix(false, length));
        merged.put_slice(&bytes);
        for chunk in chunks {
            merged.put_slice(&chunk.bytes);
            reservation.absorb(chunk.reservation);
        }
        Some(Self { frames: vec![merged.freeze()], compressed: false, reservation })
    }

    /// Compresses the message with gzip, once.
    pub(super) fn compress(&mut self) {
        if self.compressed {
            return;
        }
        let framed_bytes: usize = self.frames.iter().map(Bytes::len).sum();
        let mut output = Vec::with_capacity(framed_bytes / 4);
        output.put_slice(&prefix(true, 0));
        // The fastest level: spans repeat themselves so much that the better ones save little and cost several times it.
        let mut encoder = GzEncoder::new(output, Compression::fast());
        let mut skip = PREFIX_BYTES;
        for frame in &self.frames {
            let skipped = skip.min(frame.len());
            skip -= skipped;
            encoder.write_all(&frame[skipped..]).expect("writing to a Vec does not fail");
        }
        let mut output = encoder.finish().expect("writing to a Vec does not fail");
        let length = output.len() - PREFIX_BYTES;
        output[..PREFIX_BYTES].copy_from_slice(&prefix(true, length));
        output.shrink_to_fit();
        self.reservation.resize(output.len());
        self.frames = vec![Bytes::from(output)];
        self.compressed = true;
    }

    /// What goes onto the wire.
    pub(super) fn frames(&self) -> Vec<Bytes> {
        self.frames.clone()
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }

    pub(super) fn spans(&self) -> u64 {
        self.reservation.spans()
    }
}

fn prefix(compressed: bool, length: usize) -> [u8; PREFIX_BYTES] {
    let length = u32::try_from(length).expect("requests are bounded far below 4 GiB").to_be_bytes();
    [u8::from(compressed), length[0], length[1], length[2], length[3]]
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::budget::Budget;

    fn outgoing(parts: &[&'static [u8]], budget: &Budget) -> Outgoing {
        let chunk = |part: &&'static [u8]| {
            let mut reservation = budget.reserve(part.len()).unwrap();
            reservation.hold_spans(1);
            Chunk { bytes: Bytes::from_static(part), reservation }
        };
        Outgoing::merge(parts.iter().map(chunk).collect()).unwrap()
    }

    #[test]
    fn chunks_are_concatenated_behind_one_prefix() {
        let budget = Budget::new(1 << 20, 1 << 20);
        for parts in [&[&b"hello"[..]][..], &[b"he", b"l", b"lo"]] {
            let merged = outgoing(parts, &budget);
            assert_eq!(merged.frames().concat(), b"\x00\x00\x00\x00\x05hello");
            assert_eq!(merged.spans(), parts.len() as u64);
        }
        assert!(Outgoing::merge(Vec::new()).is_none());
    }

    #[test]
    fn compression_happens_once_and_can_be_undone() {
        let budget = Budget::new(1 << 20, 1 << 20);
        for parts in [&[&[b'a'; 10_000][..]][..], &[&[b'a'; 5_000], &[b'a'; 5_000]]] {
            let mut request = outgoing(parts, &budget);
            request.compress();
            let wire = request.frames().concat();
            request.compress();
            assert_eq!(request.frames().concat(), wire);
            assert_eq!(wire[0], 1);
            assert_eq!(u32::from_be_bytes(wire[1..5].try_into().unwrap()) as usize, wire.len() - PREFIX_BYTES);
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&wire[PREFIX_BYTES..]).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, [b'a'; 10_000]);
            assert!(budget.held_bytes() < 1_000, "the memory given back is counted");
        }
    }
}
