//! Cuts recordings, and files of `capture.dump_events`, into inputs to begin fuzzing with:
//!
//! ```text
//! cargo run --package spanlet-fuzz-checks --example seeds -- FOLDER tests/fixtures/cri/cri-conn-k134-c17-1-client [DUMP…]
//! ```
//!
//! writes `FOLDER/TARGET/…`. The committed corpora came from these by `cargo fuzz cmin`, and grew by fuzzing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use spanlet::call::SocketKind;
use spanlet::capture::record::{self, Record};
use spanlet_abi::event::{Head, Kind, opened};
use spanlet_fuzz_checks::{RecordInput, TimeStep};
use spanlet_http2::HeaderBlocks;
use spanlet_http2::frame::{FrameReader, Step};

/// Octets of a stream in one input.
const STREAM_BYTES: usize = 1_024;
/// Header blocks in one input.
const BLOCKS: usize = 8;
/// Ring records in one input.
const RECORDS: usize = 40;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("the folder to write to is missing")?;
    let folder = Path::new(&folder);
    let recording = arguments.next().context("the prefix of a recording is missing")?;
    let read =
        |suffix: &str| fs::read(format!("{recording}-{suffix}.bin")).with_context(|| format!("{recording}-{suffix}"));
    let (client, server) = (read("c2s")?, read("s2c")?);

    for (name, stream) in [("client", &client), ("server", &server)] {
        let pieces = stream.chunks(STREAM_BYTES).map(|piece| [&[99], piece].concat());
        write(folder, "frame", name, pieces)?;
        let reader = if name == "client" { FrameReader::client() } else { FrameReader::server() };
        let blocks = blocks(reader, stream);
        let inputs = blocks.chunks(BLOCKS).map(|blocks| [vec![2], blocks.concat()].concat());
        write(folder, "hpack", name, inputs)?;
    }
    write(folder, "connection", "both", connections(&client, &server))?;
    for dump in arguments {
        let bytes = fs::read(&dump).with_context(|| dump.clone())?;
        let name = Path::new(&dump).file_stem().context("a dump is a file")?.to_string_lossy().into_owned();
        write(folder, "record", &name, records(&bytes).into_iter())?;
    }
    Ok(())
}

fn write(folder: &Path, target: &str, name: &str, inputs: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    for (index, input) in inputs.enumerate() {
        fs::write(folder.join(format!("{name}-{index:03}")), input)?;
    }
    Ok(())
}

/// The header blocks of a direction, each behind its length.
fn blocks(mut reader: FrameReader, mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = HeaderBlocks::new();
    let mut found = Vec::new();
    let (mut header, mut payload) = (None, Vec::new());
    while let Ok(step) = reader.read(&mut stream) {
        let last = match step {
            Step::NeedMore => break,
            Step::Frame { header: next, .. } => {
                header = Some(next);
                payload.clear();
                next.length == 0
            }
            Step::Payload { octets, last } => {
                payload.extend_from_slice(octets);
                last
            }
        };
        if let Some(header) = header.filter(|_| last)
            && let Ok(Some(block)) = blocks.push(&header, &payload)
        {
            found.push([&(block.octets.len() as u16).to_le_bytes(), &block.octets[..]].concat());
        }
    }
    found
}

/// Both directions by turns, from their start and, joined late, from later on.
fn connections(client: &[u8], server: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let turns = client.len().div_ceil(STREAM_BYTES);
    let server_bytes = server.len().div_ceil(turns).min(2 * STREAM_BYTES);
    (0..turns.min(16)).map(move |turn| {
        let mut input = vec![u8::from(turn > 0)];
        for (from_server, stream, bytes) in [(0, client, STREAM_BYTES), (1, server, server_bytes)] {
            let piece = stream.chunks(bytes).nth(turn).unwrap_or_default();
            input.push(from_server);
            input.extend((piece.len() as u16).to_le_bytes());
            input.extend(piece);
        }
        input
    })
}

/// Pieces of a dump; all but the first begin by finding the connections.
fn records(mut dump: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((length, rest)) = dump.split_first_chunk() {
        let Some((entry, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        records.extend(record::records(entry).flatten());
        dump = rest;
    }
    records.chunks(RECORDS).map(piece_of_records).collect()
}

fn piece_of_records(records: &[Record<'_>]) -> Vec<u8> {
    let mut input = Vec::new();
    let mut connections: HashMap<u64, u8> = HashMap::new();
    let mut processes: HashMap<u32, u8> = HashMap::from([(0, 0)]);
    let mut sequences: HashMap<(u64, u8, bool), u32> = HashMap::new();
    let mut before_ns = records.first().map_or(0, |record| record.head.time_ns);
    for record in records {
        let Head { connection, process, end, time_ns, .. } = record.head;
        let known = connections.len() as u8;
        let number = *connections.entry(connection).or_insert(known);
        if number == known && record.kind != Kind::Opened {
            input.extend(found(number).to_bytes());
        }
        let known = processes.len() as u8;
        let expected = sequences.insert((connection, end, record.kind == Kind::Read), record.head.sequence);
        let gap = expected.map_or(0, |before| record.head.sequence.wrapping_sub(before + 1));
        let micros = time_ns.cast_signed().wrapping_sub(before_ns.cast_signed()) / 1_000;
        before_ns = time_ns;
        let step = RecordInput {
            what: record.kind as u8,
            end,
            flags: record.head.flags,
            connection: number,
            note: record.head.note as u8,
            field: record.head.field as u8,
            gap: gap.cast_signed().clamp(-128, 127) as i8,
            process: *processes.entry(process).or_insert(known),
            stream: record.head.stream as u16,
            step: TimeStep::Micros(micros.clamp(-32_000, 32_000) as i16),
            lead: (time_ns.saturating_sub(record.head.begun_ns) / 1_000).min(65_535) as u16,
            offset: record.head.offset as u32,
            cut: (record.head.length - record.head.captured).min(255) as u8,
            repeat: 0,
            data: record.data,
        };
        input.extend(step.to_bytes());
    }
    input
}

/// The announcement of a connection that is older than the attach.
fn found(connection: u8) -> RecordInput<'static> {
    let (note, field) = (opened::OLD as u8, SocketKind::Cri as u8);
    RecordInput { connection, note, field, data: b"/run/containerd/containerd.sock", ..RecordInput::of(Kind::Opened) }
}
