//! The frame reader: pieces, prefaces, and its three ways not to give a frame.

mod support;

use spanlet_http2::frame::{CLIENT_PREFACE, FrameReader, FrameType, Invalid, ReadError, Step, flag};
use support::frames;

/// Reads everything; a step a line.
fn read_all(reader: &mut FrameReader, octets: &[u8]) -> Result<Vec<String>, ReadError> {
    let mut input = octets;
    let mut steps = Vec::new();
    loop {
        match reader.read(&mut input)? {
            Step::NeedMore => return Ok(steps),
            Step::Frame { header, offset } => steps.push(format!("{:?}@{offset}+{}", header.frame_type, header.length)),
            Step::Payload { octets, last } => steps.push(format!("{octets:?}{}", if last { "." } else { "…" })),
        }
    }
}

#[test]
fn payloads_pass_through_as_they_come() {
    let mut reader = FrameReader::client();
    let octets = [&CLIENT_PREFACE[..], &frames::settings(&[]), &frames::data(0, 1, &[7, 8, 9])].concat();
    let (first, second) = octets.split_at(44);
    assert_eq!(read_all(&mut reader, first).unwrap(), ["Settings@24+0", "Data@33+3", "[7, 8]…"]);
    assert_eq!(reader.offset(), 44);
    assert_eq!(read_all(&mut reader, second).unwrap(), ["[9]."]);
    assert_eq!(reader.read(&mut &[][..]), Ok(Step::NeedMore));
}

#[test]
fn a_client_begins_with_its_preface_and_both_with_settings() {
    for cut in 0..CLIENT_PREFACE.len() {
        let mut octets = CLIENT_PREFACE.to_vec();
        octets[cut] ^= 1;
        let mut reader = FrameReader::client();
        let (before, after) = octets.split_at(cut);
        assert_eq!(reader.read(&mut &before[..]), Ok(Step::NeedMore));
        assert_eq!(reader.read(&mut &after[..]), Err(ReadError::Preface), "octet {cut}");
    }
    for first in [frames::ping(), frames::settings_ack(), frames::headers(0, 1, &[0x82])] {
        assert_eq!(read_all(&mut FrameReader::server(), &first), Err(ReadError::SettingsMissing));
        assert!(read_all(&mut FrameReader::joined_at(0), &first).is_ok());
    }
}

#[test]
fn errors_stay_until_it_resumes() {
    let mut reader = FrameReader::joined_at(0);
    let malformed = Err(ReadError::Malformed(Invalid::StreamId));
    assert_eq!(read_all(&mut reader, &frames::data(0, 0, b"abc")), malformed);
    assert_eq!(read_all(&mut reader, &frames::ping()), malformed);
    reader.lose();
    assert_eq!(read_all(&mut reader, &frames::ping()), Err(ReadError::LostTrack));
    reader.resume_at(1000);
    assert_eq!(read_all(&mut reader, &frames::ping()).unwrap()[0], "Ping@1000+8");
}

#[test]
fn unknown_types_and_flags_pass() {
    let octets = [frames::frame(0xfe, 0xff, 5, b"x"), frames::frame(6, 0xfe, 0, &[0; 8])].concat();
    let steps = read_all(&mut FrameReader::joined_at(0), &octets).unwrap();
    assert_eq!(steps[0], "Unknown(254)@0+1");
    assert_eq!(steps[2], "Ping@10+8");
    assert_eq!(FrameType::Headers.defined_flags() & flag::PRIORITY, flag::PRIORITY);
}
