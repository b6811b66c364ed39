//! Ring records as the kernel programs write them, read without trust in their bytes.

use spanlet_abi::event::{HEAD_BYTES, Head, Kind};

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    pub head: Head,
    /// The bytes that were copied.
    pub data: &'a [u8],
}

/// The records of an entry of the ring: each begins at a multiple of eight bytes. Behind one that is none nothing more is told.
pub fn records(entry: &[u8]) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
    let mut rest = entry;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::parse(rest);
        let taken = record.as_ref().map_or(rest.len(), |record| (HEAD_BYTES + record.data.len()).next_multiple_of(8));
        rest = rest.get(taken..).unwrap_or_default();
        Some(record)
    })
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record of {0} bytes is shorter than its head")]
    Short(usize),
    #[error("a record of unknown kind {0}")]
    Kind(u16),
    #[error("a record claims {claimed} bytes and has {present}")]
    Length { claimed: u32, present: usize },
}

impl<'a> Record<'a> {
    /// Takes the first record of some bytes apart.
    ///
    /// # Errors
    /// When the bytes are none that the kernel programs write.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(RecordError::Short(bytes.len()))?;
        let head = parse_head(head);
        let kind = Kind::from_number(head.kind).ok_or(RecordError::Kind(head.kind))?;
        let data = rest
            .get(..head.captured as usize)
            .ok_or(RecordError::Length { claimed: head.captured, present: rest.len() })?;
        Ok(Self { kind, head, data })
    }
}

fn parse_head(bytes: &[u8; HEAD_BYTES]) -> Head {
    Head {
        kind: u16::from_ne_bytes(at(bytes, 0)),
        end: bytes[2],
        flags: bytes[3],
        sequence: u32::from_ne_bytes(at(bytes, 4)),
        connection: u64::from_ne_bytes(at(bytes, 8)),
        time_ns: u64::from_ne_bytes(at(bytes, 16)),
        begun_ns: u64::from_ne_bytes(at(bytes, 24)),
        offset: u64::from_ne_bytes(at(bytes, 32)),
        stream: u32::from_ne_bytes(at(bytes, 40)),
        process: u32::from_ne_bytes(at(bytes, 44)),
        length: u32::from_ne_bytes(at(bytes, 48)),
        captured: u32::from_ne_bytes(at(bytes, 52)),
        note: u32::from_ne_bytes(at(bytes, 56)),
        field: u32::from_ne_bytes(at(bytes, 60)),
    }
}

/// `N` bytes at a constant offset within the head.
fn at<const N: usize>(bytes: &[u8; HEAD_BYTES], offset: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[offset..offset + N]);
    part
}

/// Writes a head as the kernel lays it out: for tests and tools.
pub fn head_bytes(head: &Head) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[0..2].copy_from_slice(&head.kind.to_ne_bytes());
    bytes[2] = head.end;
    bytes[3] = head.flags;
    bytes[4..8].copy_from_slice(&head.sequence.to_ne_bytes());
    for (offset, value) in [(8, head.connection), (16, head.time_ns), (24, head.begun_ns), (32, head.offset)] {
        bytes[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    }
    let words = [
        (40, head.stream),
        (44, head.process),
        (48, head.length),
        (52, head.captured),
        (56, head.note),
        (60, head.field),
    ];
    for (offset, value) in words {
        bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_accepted_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(records(&bytes).count() <= bytes.len().div_ceil(HEAD_BYTES));
            if let Ok(record) = Record::parse(&bytes) {
                prop_assert_eq!(&head_bytes(&record.head)[..], &bytes[..HEAD_BYTES]);
                prop_assert_eq!(record.data.len(), record.head.captured as usize);
            }
        }
    }

    #[test]
    fn an_entry_holds_records_one_behind_the_other() {
        let record = |stream, data: &[u8]| {
            let head = Head { kind: Kind::Field as u16, captured: data.len() as u32, stream, ..Head::default() };
            [&head_bytes(&head), data].concat()
        };
        let entry = [record(1, b"abc"), vec![0; 5], record(3, b""), record(5, b"12345678"), record(7, b"z")].concat();
        let told: Vec<(u32, &[u8])> =
            records(&entry).map(|record| record.map(|record| (record.head.stream, record.data)).unwrap()).collect();
        assert_eq!(told, [(1, &b"abc"[..]), (3, b""), (5, b"12345678"), (7, b"z")]);
        let broken: Vec<_> = records(&entry[..HEAD_BYTES + 9]).collect();
        assert_eq!(broken[1], Err(RecordError::Short(1)));
        assert_eq!(broken.len(), 2);
    }

    #[test]
    fn a_record_must_hold_what_it_claims() {
        let head = Head { kind: Kind::Field as u16, captured: 3, stream: 5, ..Head::default() };
        let mut bytes = head_bytes(&head).to_vec();
        bytes.extend(b"ab");
        assert_eq!(Record::parse(&bytes), Err(RecordError::Length { claimed: 3, present: 2 }));
        bytes.extend(b"c\0\0");
        assert_eq!(Record::parse(&bytes).unwrap().data, b"abc");
        assert_eq!(Record::parse(&bytes[..10]), Err(RecordError::Short(10)));
        bytes[0] = 200;
        assert_eq!(Record::parse(&bytes), Err(RecordError::Kind(200)));
    }
}
