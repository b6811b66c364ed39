//! Every committed input, and some thousand mutations of them, through the functions that the fuzz targets call. Which mutations
//! does not depend on the time nor on the machine.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use spanlet::call::SocketKind;
use spanlet::capture::limits;
use spanlet::capture::offline::Kept;
use spanlet_abi::event::{CLIENT, Kind, SERVER, field, headers};
use spanlet_fuzz_checks::{RecordInput, TARGETS, Target, record_up_to};
use spanlet_http2::frame::flag;

/// Mutations of each target's corpus: what all of them together do in a few seconds without optimisations.
const MUTATIONS: usize = 2_000;
/// Octets that lengths, counts and flags break at.
const SPECIAL: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 4, 8, 64];
/// Longest mutated input; libFuzzer's default.
const MAX_BYTES: usize = 4_096;

/// Inputs that cover the code, and inputs that once broke a rule.
const FOLDERS: [&str; 2] = ["corpus", "regressions"];

#[test]
fn committed_inputs_keep_the_rules() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let failing = inputs(target).into_iter().filter(|(_, input)| catch_unwind(|| (target.check)(input)).is_err());
        broken.extend(failing.map(|(path, _)| path));
    }
    assert_eq!(broken, Vec::<PathBuf>::new(), "see the panics above");
}

#[test]
fn mutated_inputs_keep_the_rules() {
    for (number, target) in TARGETS.into_iter().enumerate() {
        let inputs: Vec<_> = inputs(target).into_iter().map(|(_, input)| input).collect();
        for seed in 0..MUTATIONS as u64 {
            let mut rng = Rng::with_seed(seed << 8 | number as u64);
            let input = mutated(&inputs, &mut rng);
            let result = catch_unwind(|| (target.check)(&input));
            assert!(result.is_ok(), "{} of seed {seed}: see the panic above; input: {input:02x?}", target.name);
        }
    }
}

/// What a fuzzer would take too long for: every cap of capture's user side is reached, and goes no further.
#[test]
fn records_reach_every_cap() {
    let many = RecordInput::REPEAT + 3; // 8,192 times
    let of_one_stream = many | RecordInput::REPEAT_SAME;
    let whole = (headers::FRAME_BEGINS | headers::FRAME_COMPLETE) as u8;
    let frame_begins = RecordInput { note: headers::FRAME_BEGINS as u8, ..RecordInput::of(Kind::Headers) };
    let streaming = RecordInput { offset: 9, repeat: of_one_stream, ..RecordInput::of(Kind::Streaming) };
    let steps = [
        RecordInput { field: SocketKind::Cri as u8, repeat: many, ..RecordInput::of(Kind::Opened) },
        RecordInput {
            note: whole,
            flags: flag::END_HEADERS,
            repeat: many,
            data: &[0x83],
            ..RecordInput::of(Kind::Headers)
        },
        RecordInput {
            note: field::BEGINS as u8,
            repeat: of_one_stream,
            data: &[b'a'; 600],
            ..RecordInput::of(Kind::Field)
        },
        RecordInput { repeat: many, data: b"runc\0", ..RecordInput::of(Kind::Exec) },
        RecordInput { connection: 1, repeat: many, data: b"runc\0", ..RecordInput::of(Kind::Exec) },
        RecordInput { end: CLIENT, ..streaming },
        RecordInput { end: SERVER, ..streaming },
        frame_begins,
        RecordInput { repeat: of_one_stream, data: &[0; 100], ..RecordInput::of(Kind::Headers) },
        RecordInput { end: SERVER, ..frame_begins },
        RecordInput { end: SERVER, repeat: of_one_stream, data: &[0; 100], ..RecordInput::of(Kind::Headers) },
        // Of a call that never begins: one too many lets all go, and as looks are as far apart as the cap is high, one sees it reached.
        RecordInput { end: SERVER, stream: 60_001, repeat: of_one_stream, ..RecordInput::of(Kind::DataEnd) },
    ];
    let input: Vec<u8> = steps.iter().flat_map(RecordInput::to_bytes).collect();
    let caps = Kept {
        connections: limits::MAX_CONNECTIONS,
        execs: limits::MAX_EXECS,
        streams: limits::MAX_STREAMS,
        waiting_points: 2 * limits::MAX_WAITING,
        early: limits::MAX_EARLY,
        unnamed: limits::MAX_UNNAMED,
        header_bytes: 2 * limits::MAX_HEADER_BYTES,
        field_bytes: limits::MAX_FIELDS * limits::MAX_FIELD_BYTES,
    };
    assert_eq!(record_up_to(&input, usize::MAX), caps);
}

fn inputs(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let folders = FOLDERS.map(|folder| fuzz.join(folder).join(target.name));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder of the repository").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "target {} has no inputs", target.name);
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("a file of the repository"));
    paths.into_iter().map(read).collect()
}

/// One of the inputs, changed in one to four places.
fn mutated(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len().min(at + 64));
        match rng.u8(..6) {
            0 => input[at..end].iter_mut().take(1).for_each(|octet| *octet ^= 1 << rng.u8(..8)),
            1 => input[at..end].iter_mut().take(1).for_each(|octet| *octet = SPECIAL[rng.usize(..SPECIAL.len())]),
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            4 => {
                let other = &inputs[rng.usize(..inputs.len())];
                let from = rng.usize(..=other.len());
                input.splice(at.., other[from..].iter().copied());
            }
            _ => input[at..end].iter_mut().take(4).for_each(|octet| *octet = rng.u8(..)),
        }
    }
    input.truncate(MAX_BYTES);
    input
}
