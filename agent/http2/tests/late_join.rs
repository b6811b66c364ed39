//! A decoder that joins late never says something wrong, becomes exact where the table turns over, and can be taught.

mod support;

use std::collections::{BTreeMap, HashMap};

use spanlet_http2::connection::{Direction, Endpoint, Event, HeadersLost};
use spanlet_http2::hpack::{DecodeError, Malformed};
use spanlet_http2::{Decoder, EntryId, Exactness, HeaderList, Octets, grpc_timeout};
use support::{RECORDINGS, Recording, frame_offsets};

type Truth = BTreeMap<u64, Vec<(String, String)>>;

/// What a joined decoder said of one request or response.
struct Said<'a> {
    truth: &'a [(String, String)],
    list: HeaderList,
    exactness: Exactness,
}

/// Joins at `offset` and decodes the rest; `teach` may teach after each block.
fn decode_from<'t>(
    octets: &[u8],
    sender: Endpoint,
    offset: usize,
    truth: &'t Truth,
    mut teach: impl FnMut(&mut Decoder, &HeaderList, &[(String, String)]),
) -> Vec<Said<'t>> {
    let mut direction = Direction::joined_at(sender, offset as u64);
    let frames = frame_offsets(octets, sender);
    let mut said = Vec::new();
    for (index, &start) in frames.iter().enumerate().skip_while(|(_, start)| **start < offset) {
        let end = frames.get(index + 1).copied().unwrap_or(octets.len());
        let mut decoded = None;
        direction
            .feed(&octets[start..end], |event| match event {
                Event::Headers { frame_offset, list, .. } => decoded = Some((&truth[&frame_offset], list.clone())),
                Event::HeadersLost { reason, .. } => panic!("lost at {offset}: {reason}"),
                _ => {}
            })
            .expect("a recording is valid from any frame on");
        if let Some((truth, list)) = decoded {
            teach(direction.decoder_mut(), &list, truth);
            said.push(Said { truth, list, exactness: direction.decoder().exactness() });
        }
    }
    said
}

fn teach_nothing(_: &mut Decoder, _: &HeaderList, _: &[(String, String)]) {}

/// A name that goes on from before the join is never said again. Of gRPC requests' headers, `traceparent` (W3C Trace
/// Context) and `grpc-timeout` are told by the shape of their values.
fn teach_by_shape(decoder: &mut Decoder, list: &HeaderList, _: &[(String, String)]) {
    for field in list.fields() {
        let (Octets::Unknown(name), Some(value)) = (&field.name, field.value.known()) else { continue };
        if value.len() == 55 && value.starts_with(b"00-") {
            assert!(decoder.learn_name(*name, b"traceparent"));
        } else if grpc_timeout::parse(value).is_some() {
            assert!(decoder.learn_name(*name, b"grpc-timeout"));
        }
    }
}

fn assert_never_wrong(said: &Said<'_>) {
    assert_eq!(said.list.fields().len(), said.truth.len());
    for (field, (name, value)) in said.list.fields().iter().zip(said.truth) {
        if let Some(known) = field.name.known() {
            assert_eq!(known, name.as_bytes());
        }
        if let Some(known) = field.value.known() {
            assert_eq!(known, value.as_bytes());
        }
    }
}

#[test]
fn never_a_wrong_field_from_any_frame_on() {
    for name in RECORDINGS {
        let recording = Recording::load(name);
        for sender in [Endpoint::Client, Endpoint::Server] {
            let truth = recording.header_lists(sender);
            let octets = recording.sent_by(sender);
            // Each frame of the short ones, a spread of the long ones: decoding the rest each time is quadratic.
            let frames = frame_offsets(octets, sender);
            for offset in frames.iter().step_by(frames.len() / 200 + 1) {
                for said in decode_from(octets, sender, *offset, &truth, teach_nothing) {
                    assert_never_wrong(&said);
                }
                for said in decode_from(octets, sender, *offset, &truth, teach_by_shape) {
                    assert_never_wrong(&said);
                }
            }
        }
    }
}

#[test]
fn with_tracing_requests_are_exact_within_40_requests() {
    let recording = Recording::load("k134-c17-1");
    let truth = recording.header_lists(Endpoint::Client);
    let mut joins_watched_to_the_end = 0;
    for offset in frame_offsets(&recording.client, Endpoint::Client) {
        let said = decode_from(&recording.client, Endpoint::Client, offset, &truth, teach_by_shape);
        if said.len() < 40 {
            continue;
        }
        joins_watched_to_the_end += 1;
        for late in &said[39..] {
            assert!(late.list.is_known(), "joined at {offset}: {:?}", late.list);
        }
        // To be certain of it takes 4,096 octets of insertions: 42 times the 98 of a traceparent, were there nothing else.
        for late in said.iter().skip(42) {
            assert_eq!(late.exactness, Exactness::Exact, "joined at {offset}");
        }
        for exact in said.iter().skip_while(|said| said.exactness != Exactness::Exact).skip(1) {
            assert!(exact.list.is_known(), "joined at {offset}");
        }
    }
    assert!(joins_watched_to_the_end > 100);
}

#[test]
fn without_tracing_every_old_path_has_one_id() {
    let recording = Recording::load("k134-c22-notrace-1");
    let truth = recording.header_lists(Endpoint::Client);
    let mut unknown_paths = 0;
    for offset in frame_offsets(&recording.client, Endpoint::Client).into_iter().step_by(7) {
        let mut path_of: HashMap<EntryId, &str> = HashMap::new();
        let mut id_of: HashMap<&str, EntryId> = HashMap::new();
        for said in decode_from(&recording.client, Endpoint::Client, offset, &truth, teach_nothing) {
            let position = said.truth.iter().position(|(name, _)| name == ":path").expect("a request has a path");
            let path = said.truth[position].1.as_str();
            let Some(id) = said.list.fields()[position].value.unknown() else { continue };
            assert_eq!(*path_of.entry(id).or_insert(path), path, "joined at {offset}");
            assert_eq!(*id_of.entry(path).or_insert(id), id, "joined at {offset}");
            unknown_paths += 1;
        }
    }
    assert!(unknown_paths > 1000, "{unknown_paths}");
}

/// As a call joined with a span teaches: each unknown field is taught once, when it is first met.
#[test]
fn what_was_taught_once_is_known_ever_after() {
    let recording = Recording::load("k134-c22-notrace-1");
    let truth = recording.header_lists(Endpoint::Client);
    let frames = frame_offsets(&recording.client, Endpoint::Client);
    for offset in [frames[frames.len() / 3], frames[frames.len() / 2]] {
        let mut taught = HashMap::new();
        let said = decode_from(&recording.client, Endpoint::Client, offset, &truth, |decoder, list, truth| {
            for (field, (name, value)) in list.fields().iter().zip(truth) {
                if let Some(id) = field.value.unknown() {
                    assert!(decoder.learn(id, name.as_bytes(), value.as_bytes()));
                    assert_eq!(taught.insert(id, name.clone()), None, "taught once is enough");
                }
            }
        });
        assert!(taught.values().any(|name| name == ":path"));
        said.iter().for_each(assert_never_wrong);
        assert!(said.last().expect("requests follow").list.is_known());
    }
}

#[test]
fn ids_do_not_shift_with_insertions_and_names_keep_their_origin() {
    let mut decoder = Decoder::late();
    // Indexed 70 is the ninth newest entry. A literal named after it is inserted, and it moves to 71.
    let list = decoder.decode(&[0x80 | 70, 0x40 | 63, 70 - 63, 1, b'x', 0x80 | 71, 0x80 | 62]).unwrap();
    let [before, inserted, after, again] = list.fields() else { panic!("four fields: {list:?}") };
    let id = before.value.unknown().expect("older than the join");
    assert_eq!(id.number(), -9);
    assert_eq!(before, after);
    assert_eq!((&inserted.name, inserted.value.known()), (&Octets::Unknown(id), Some(&b"x"[..])));
    assert_eq!(again, inserted);

    assert!(decoder.learn(id, b"traceparent", b"y"));
    let list = decoder.decode(&[0x80 | 71, 0x80 | 62]).unwrap();
    assert!(list.is_known());
    assert_eq!(list.value(b"traceparent"), Some(&Octets::Known("y".into())));
    assert_eq!(list.fields()[1].value, inserted.value);
}

#[test]
fn an_emptied_table_is_exact_at_once_and_knows_no_old_index() {
    let mut decoder = Decoder::late();
    assert_eq!(decoder.exactness(), Exactness::Late);
    let id = decoder.decode(&[0x80 | 62]).unwrap().fields()[0].value.unknown().unwrap();
    decoder.decode(&[0x20, 0x3f, 0xe1, 0x1f]).unwrap(); // 0, then 4,096 again
    assert_eq!(decoder.exactness(), Exactness::Exact);
    assert!(!decoder.learn(id, b"name", b"value"), "nothing can mean it any more");
    assert_eq!(decoder.decode(&[0x80 | 62]), Err(DecodeError::Malformed(Malformed::Index(62))));
}

#[test]
fn an_index_that_no_table_of_that_size_can_have_is_malformed() {
    // 4,096 / 32 entries: positions 0 to 127.
    let mut decoder = Decoder::late();
    assert!(decoder.decode(&[0xff, 62 + 127 - 127]).is_ok());
    assert_eq!(decoder.decode(&[0xff, 62 + 128 - 127]), Err(DecodeError::Malformed(Malformed::Index(190))));
}

#[test]
fn a_malformed_block_loses_the_table_until_a_restart() {
    let mut decoder = Decoder::new();
    decoder.decode(&[0x40, 1, b'a', 1, b'b']).unwrap();
    let mut list = HeaderList::default();
    let error = decoder.decode_into(&[0x80 | 62, 0x82, 0x40, 1], &mut list).unwrap_err();
    assert_eq!(error, DecodeError::Malformed(Malformed::Truncated));
    assert_eq!(list.value(b"a"), Some(&Octets::Known("b".into())), "fields before the end of a cut block are right");
    assert_eq!(list.fields().len(), 2);
    assert_eq!(decoder.exactness(), Exactness::Lost);
    assert_eq!(decoder.decode(&[0x82]), Err(DecodeError::LostTrack));

    decoder.restart_late();
    assert_eq!(decoder.exactness(), Exactness::Late);
    let old = decoder.decode(&[0x80 | 62]).unwrap().fields()[0].value.unknown().unwrap();
    decoder.restart_late();
    let new = decoder.decode(&[0x80 | 62]).unwrap().fields()[0].value.unknown().unwrap();
    assert_ne!(old, new, "ids are not used again");
}

/// A direction that loses a block goes on by itself, as a late joiner.
#[test]
fn a_direction_goes_on_after_a_malformed_block() {
    let mut direction = Direction::joined_at(Endpoint::Client, 0);
    let mut events = Vec::new();
    // Index 0; then ":method: GET" and an old entry.
    let octets = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x80, 0, 0, 2, 1, 4, 0, 0, 0, 3, 0x82, 0x80 | 62];
    direction.feed(&octets, |event| events.push(format!("{event:?}"))).unwrap();
    let lost = HeadersLost::Decode(DecodeError::Malformed(Malformed::Index(0)));
    assert!(events[0].contains(&format!("{lost:?}")), "{events:?}");
    assert!(events[1].starts_with("Headers { stream_id: 3"), "{events:?}");
    assert_eq!(direction.decoder().exactness(), Exactness::Late);
    assert_eq!(direction.counters().hpack.malformed, 1);
}
