//! Target `frame`: octets as frames, and as a stream that was joined anywhere.
//!
//! Input: an octet that says how the stream is cut into pieces, then the stream.

use spanlet_http2::HeaderBlocks;
use spanlet_http2::frame::{FrameHeader, FrameReader, HEADER_LEN, ReadError, Step, data_padding, header_fragment};
use spanlet_http2::limits::DEFAULT_FRAME_BYTES;
use spanlet_http2::resync::{self, Resync};

use crate::input::Input;

/// What a reader made of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// Each header with its offset.
    frames: Vec<(FrameHeader, u64)>,
    payload: Vec<u8>,
    end: Result<(), ReadError>,
}

/// See the module.
pub fn frame(input: &[u8]) {
    let mut input = Input(input);
    let piece = usize::from(input.byte()) + 1;
    let stream = input.0;
    for new in [FrameReader::client, FrameReader::server, || FrameReader::joined_at(0)] {
        let whole = read(new(), [stream].into_iter());
        assert_eq!(whole, read(new(), stream.chunks(piece)), "pieces change nothing");
        check_read(&whole, stream);
    }
    check_resync(stream, piece);
    check_payloads(stream);
}

fn read<'a>(mut reader: FrameReader, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut read = Read { frames: Vec::new(), payload: Vec::new(), end: Ok(()) };
    let mut fed_bytes = 0;
    'pieces: for mut piece in pieces {
        fed_bytes += piece.len() as u64;
        loop {
            match reader.read(&mut piece) {
                Ok(Step::NeedMore) => break,
                Ok(Step::Frame { header, offset }) => read.frames.push((header, offset)),
                Ok(Step::Payload { octets, .. }) => read.payload.extend_from_slice(octets),
                Err(error) => {
                    assert_eq!(reader.read(&mut &b"more"[..]), Err(error), "an error stays");
                    read.end = Err(error);
                    break 'pieces;
                }
            }
        }
    }
    assert!(read.end.is_err() || reader.offset() == fed_bytes, "everything was taken");
    read
}

/// Every octet of the stream is in the preface, in a header or in a payload, in order.
fn check_read(read: &Read, stream: &[u8]) {
    let mut payload = &read.payload[..];
    for (index, (header, offset)) in read.frames.iter().enumerate() {
        assert_eq!(header.validate(DEFAULT_FRAME_BYTES), Ok(()), "only valid headers are given");
        let start = *offset as usize + HEADER_LEN;
        let octets = payload.split_off(..payload.len().min(header.length as usize)).expect("not beyond the end");
        assert_eq!(octets, &stream[start..start + octets.len()]);
        if let Some((_, next)) = read.frames.get(index + 1) {
            assert_eq!(*next, (start + header.length as usize) as u64, "frames follow each other");
        }
    }
    assert!(payload.is_empty(), "a payload belongs to a frame");
}

/// A boundary is where a plausible header stands, wherever the pieces are cut.
fn check_resync(stream: &[u8], piece: usize) {
    let found = resync::find(stream, DEFAULT_FRAME_BYTES);
    if let Some(at) = found {
        let header = stream[at..].first_chunk().expect("a boundary is before a whole header");
        assert!(resync::is_plausible(&FrameHeader::parse(header), DEFAULT_FRAME_BYTES));
    }
    let mut resync = Resync::new(0, DEFAULT_FRAME_BYTES);
    let by_pieces = stream.chunks(piece).find_map(|piece| resync.push(piece)).map(|boundary| boundary.offset as usize);
    assert_eq!(found, by_pieces, "pieces change nothing");
}

/// Takes the stream for one header with a payload of what follows, whatever its length says.
fn check_payloads(stream: &[u8]) {
    let Some((header, payload)) = stream.split_first_chunk::<HEADER_LEN>() else { return };
    let header = FrameHeader::parse(header);
    if let Ok(fragment) = header_fragment(&header, payload) {
        assert!(fragment.len() <= payload.len());
    }
    if let Ok(padding) = data_padding(header.length, header.flags) {
        assert!(padding < header.length, "the padding's length is no padding");
    }
    if let Ok(Some(block)) = HeaderBlocks::new().push(&header, payload) {
        assert!(block.octets.len() <= payload.len());
    }
}
