//! HPACK against an encoder of its own: whatever it sends is decoded exactly, or, joined late, never wrongly.

mod support;

use std::collections::HashMap;

use proptest::prelude::*;
use spanlet_http2::limits::DEFAULT_TABLE_BYTES;
use spanlet_http2::{Decoder, EntryId, Exactness, Field, HeaderList, Octets};
use support::encoder::{Encoder, Representation, huffman_coded};

/// One header block to be sent.
#[derive(Debug, Clone)]
struct Block {
    /// New maximum sizes of the table, before the fields.
    size_updates: Vec<usize>,
    huffman: bool,
    fields: Vec<(Vec<u8>, Vec<u8>, Representation)>,
}

/// Few names and values, so that indices are used; some long, so that entries are evicted and refused. Sizes stay within what
/// a late joiner assumes.
fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let octets = prop_oneof![
        6 => prop::sample::select(vec![&b""[..], b"a", b"te", b"grpc-timeout", b"traceparent", b"119999m", b"\0\xff\x80"])
            .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (0_usize..5000).prop_map(|len| vec![b'0'; len]),
    ];
    let representation = prop_oneof![
        4 => Just(Representation::Incremental),
        1 => Just(Representation::WithoutIndexing),
        1 => Just(Representation::NeverIndexed),
    ];
    let field = (octets.clone(), octets, representation);
    let size_updates = prop_oneof![8 => Just(vec![]), 1 => prop::collection::vec(0_usize..=DEFAULT_TABLE_BYTES, 1..3)];
    let block = (size_updates, any::<bool>(), prop::collection::vec(field, 0..8))
        .prop_map(|(size_updates, huffman, fields)| Block { size_updates, huffman, fields });
    prop::collection::vec(block, 1..24)
}

fn encoded(blocks: &[Block]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let encode = |block: &Block| {
        let mut octets = Vec::new();
        encoder.huffman = block.huffman;
        for size_bytes in &block.size_updates {
            encoder.size_update(*size_bytes, &mut octets);
        }
        for (name, value, representation) in &block.fields {
            encoder.field(name, value, *representation, &mut octets);
        }
        octets
    };
    blocks.iter().map(encode).collect()
}

fn assert_agrees(field: &Field, (name, value, representation): &(Vec<u8>, Vec<u8>, Representation)) {
    assert!(field.name.known().is_none_or(|known| known == name), "{field:?} is not {name:?}");
    assert!(field.value.known().is_none_or(|known| known == value), "{field:?} is not {value:?}");
    assert_eq!(field.never_indexed, *representation == Representation::NeverIndexed);
}

proptest! {
    #[test]
    fn round_trip(blocks in blocks()) {
        let mut decoder = Decoder::new();
        for (block, octets) in blocks.iter().zip(encoded(&blocks)) {
            let list = decoder.decode(&octets).unwrap();
            prop_assert!(list.is_known());
            prop_assert_eq!(list.fields().len(), block.fields.len());
            for (field, sent) in list.fields().iter().zip(&block.fields) {
                assert_agrees(field, sent);
            }
            prop_assert_eq!(decoder.exactness(), Exactness::Exact);
        }
    }

    /// Joined at any block, taught some of the time: known fields are right, and an id always means the same entry.
    #[test]
    fn late_join_is_never_wrong(blocks in blocks(), join in 0_usize..24, teach in any::<u64>()) {
        let join = join.min(blocks.len());
        let mut decoder = Decoder::late();
        let (mut names, mut values) = (HashMap::<EntryId, &[u8]>::new(), HashMap::<EntryId, &[u8]>::new());
        let mut was_exact = false;
        for (index, octets) in encoded(&blocks).iter().enumerate().skip(join) {
            let list = decoder.decode(octets).unwrap();
            prop_assert_eq!(list.fields().len(), blocks[index].fields.len());
            prop_assert!(!was_exact || list.is_known());
            for (field, sent) in list.fields().iter().zip(&blocks[index].fields) {
                assert_agrees(field, sent);
                let (name, value) = (&sent.0[..], &sent.1[..]);
                if let Octets::Unknown(id) = field.name {
                    prop_assert_eq!(*names.entry(id).or_insert(name), name);
                    if teach >> (index % 64) & 1 == 1 {
                        decoder.learn_name(id, name);
                    }
                }
                if let Octets::Unknown(id) = field.value {
                    prop_assert_eq!(*values.entry(id).or_insert(value), value);
                    if teach >> ((index + 7) % 64) & 1 == 1 {
                        decoder.learn(id, name, value);
                    }
                }
            }
            was_exact = decoder.exactness() == Exactness::Exact;
        }
    }

    /// A block that was copied in part gives its first fields.
    #[test]
    fn a_cut_block_gives_what_it_holds(blocks in blocks(), cut in any::<prop::sample::Index>()) {
        let mut decoder = Decoder::new();
        let (last, before) = blocks.split_last().expect("at least one block");
        let octets = encoded(&blocks);
        for (_, octets) in before.iter().zip(&octets) {
            decoder.decode(octets).unwrap();
        }
        let whole = &octets[before.len()];
        let mut list = HeaderList::default();
        let cut = &whole[..cut.index(whole.len() + 1)];
        let complete = decoder.decode_into(cut, &mut list).is_ok();
        prop_assert!(list.fields().len() <= last.fields.len());
        prop_assert!(complete || cut.len() < whole.len());
        for (field, sent) in list.fields().iter().zip(&last.fields) {
            assert_agrees(field, sent);
        }
    }

    #[test]
    fn huffman_round_trip(octets in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut decoded = Vec::new();
        let whole = spanlet_http2::hpack::huffman::decode(&huffman_coded(&octets), octets.len(), &mut decoded);
        prop_assert_eq!(whole, Ok(true));
        prop_assert_eq!(decoded, octets);
    }
}
