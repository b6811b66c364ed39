//! Target `hpack`: header blocks for a decoder that was there from the start, and for one that joined late.
//!
//! Input: an octet that says from which block on the late one sees them, then each block behind its length of two octets
//! (little-endian).

use spanlet_http2::hpack::DecodeError;
use spanlet_http2::limits::{MAX_FIELDS, MAX_HEADER_LIST_BYTES, MAX_STRING_BYTES};
use spanlet_http2::{Decoder, Exactness, HeaderList, Octets};

use crate::input::Input;

/// See the module.
pub fn hpack(input: &[u8]) {
    let mut input = Input(input);
    let join = usize::from(input.byte());
    let mut exact = Decoder::new();
    let mut late = Decoder::late();
    let mut index = 0;
    while !input.is_empty() {
        let length = input.word();
        let block = input.take(usize::from(length));
        let truth = decode(&mut exact, block);
        if index >= join {
            let seen = decode(&mut late, block);
            if let (Some(truth), Some(seen)) = (&truth, &seen) {
                check_late(truth, seen);
                teach(&mut late, truth, seen);
            }
            if seen.is_none() {
                late.restart_late();
            }
        }
        if truth.is_none() {
            exact.restart_late();
            return decode_lost(exact, late, input);
        }
        index += 1;
    }
}

/// What is left once no decoder is exact: nothing can be compared, everything must keep within its limits.
fn decode_lost(mut first: Decoder, mut second: Decoder, mut input: Input<'_>) {
    while !input.is_empty() {
        let length = input.word();
        let block = input.take(usize::from(length));
        for decoder in [&mut first, &mut second] {
            match decode(decoder, block) {
                Some(list) => {
                    let unknown = list.fields().iter().find_map(|field| field.name.unknown());
                    unknown.map(|entry| decoder.learn(entry, b"name", block));
                }
                None => decoder.restart_late(),
            }
        }
    }
}

/// Decodes a block and checks what holds for any; `None` if the decoder has lost track.
fn decode(decoder: &mut Decoder, block: &[u8]) -> Option<HeaderList> {
    let was_exact = decoder.exactness() == Exactness::Exact;
    let mut list = HeaderList::default();
    let result = decoder.decode_into(block, &mut list);
    check_list(&list, was_exact);
    if result.is_err() {
        assert_eq!(decoder.exactness(), Exactness::Lost);
        assert_eq!(
            decoder.decode(block),
            Err(DecodeError::LostTrack),
            "nothing decodes until the decoder is restarted"
        );
        return None;
    }
    assert!(!was_exact || decoder.exactness() == Exactness::Exact, "what is known stays known");
    Some(list)
}

fn check_list(list: &HeaderList, exact: bool) {
    assert!(list.fields().len() <= MAX_FIELDS);
    let strings = list.fields().iter().flat_map(|field| [&field.name, &field.value]);
    let mut sum_bytes = 0;
    for string in strings {
        let length = string.known().map_or(0, <[u8]>::len);
        assert!(length <= MAX_STRING_BYTES);
        assert!(!exact || string.known().is_some(), "an exact decoder knows every field");
        sum_bytes += length;
    }
    assert!(sum_bytes <= MAX_HEADER_LIST_BYTES);
}

/// A late decoder may not know; it is never wrong.
fn check_late(truth: &HeaderList, seen: &HeaderList) {
    if truth.refused() + seen.refused() > 0 {
        return; // fields that were left out are not the same ones: unknown strings count as empty
    }
    assert_eq!(truth.fields().len(), seen.fields().len());
    for (truth, seen) in truth.fields().iter().zip(seen.fields()) {
        for (truth, seen) in [(&truth.name, &seen.name), (&truth.value, &seen.value)] {
            assert!(seen.known().is_none_or(|seen| Some(seen) == truth.known()), "{seen:?} is {truth:?}");
        }
    }
}

/// Teaches the late decoder what the first unknown field of a block stands for.
fn teach(late: &mut Decoder, truth: &HeaderList, seen: &HeaderList) {
    if truth.refused() + seen.refused() > 0 {
        return;
    }
    let both = || truth.fields().iter().zip(seen.fields());
    let whole = both().find_map(|(truth, seen)| match (&seen.name, &seen.value) {
        (Octets::Unknown(name), Octets::Unknown(value)) if name == value => Some((*name, truth)),
        _ => None,
    });
    if let Some((entry, truth)) = whole
        && let (Some(name), Some(value)) = (truth.name.known(), truth.value.known())
    {
        late.learn(entry, name, value);
    }
    let named = both().find_map(|(truth, seen)| Some((seen.name.unknown()?, truth.name.known()?)));
    if let Some((entry, name)) = named {
        late.learn_name(entry, name);
    }
}
