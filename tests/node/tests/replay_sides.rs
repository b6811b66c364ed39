//! The two sides of a replay against each other, without an agent. Each compares every byte that it reads with the recording.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spanlet_node::replay::{Action, Pair, Recording, Side, SideReport, Timeline, monotonic_ns};

const SECOND_NS: u64 = 1_000_000_000;

#[tokio::test]
async fn a_recording_of_both_sides_is_played_call_by_call() {
    let prefix = fixture("cri-conn-k134-c17");
    let (client, server) = play(&prefix, 10.0, None).await;
    assert_same_calls(&prefix, Side::Client, &client);
    assert_same_calls(&prefix, Side::Server, &server);
    assert!(client.late_p50_us < 5_000 && server.late_p50_us < 5_000, "{client:?} {server:?}");
}

#[tokio::test]
async fn a_server_that_was_not_recorded_mirrors_its_client() {
    let prefix = fixture("cri-conn-k134-c22-notrace");
    let (client, server) = play(&prefix, 40.0, None).await;
    assert_same_calls(&prefix, Side::Client, &client);
    assert_eq!((server.bytes_read, server.bytes_written), (client.bytes_written, client.bytes_read));
    assert_eq!(server.reads + server.merged_reads, client.writes);
    assert_eq!(server.writes, client.reads + client.merged_reads);
}

#[tokio::test]
async fn both_sides_stand_still_at_an_offset_until_told_to_go_on() {
    let prefix = fixture("cri-conn-k134-c17");
    let (client, server) = play(&prefix, 40.0, Some(4_000)).await;
    assert_same_calls(&prefix, Side::Client, &client);
    assert_same_calls(&prefix, Side::Server, &server);
}

/// Connection 1 carries more than a socket's buffer holds and is closed by its client; connection 2 opens after that. Writes
/// were accepted in part, a read was empty.
#[tokio::test]
async fn large_messages_partial_writes_and_closed_connections_are_played() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path().join("made");
    let mut client = Events::default();
    client.call("connect", 0.0);
    client.transfer("write", "tx", 0.010, 24, 24);
    client.transfer("write", "tx", 0.020, 300_000, 600_000);
    client.transfer("write", "tx", 0.030, 300_000, 300_000);
    client.transfer("read", "rx", 0.040, 100, 32_768);
    client.call("close", 0.050);
    client.write(&prefix, 1, Side::Client);
    let mut server = Events::default();
    server.call("accept", 0.001);
    server.transfer("read", "rx", 0.012, 24, 24);
    for piece in 0..20_u32 {
        server.transfer("read", "rx", 0.021 + f64::from(piece) * 0.0005, 30_000, 32_768);
    }
    server.transfer("write", "tx", 0.035, 100, 100);
    server.call("read", 0.051);
    server.call("close", 0.052);
    server.write(&prefix, 1, Side::Server);
    let mut client = Events::default();
    client.call("connect", 0.060);
    client.transfer("write", "tx", 0.061, 24, 24);
    client.transfer("read", "rx", 0.070, 24, 32_768);
    client.write(&prefix, 2, Side::Client);

    let (client, server) = play(&prefix, 0.5, None).await;
    assert_eq!((client.connections, client.bytes_written, client.bytes_read), (2, 600_048, 124));
    assert_eq!((server.connections, server.bytes_read, server.bytes_written), (2, 600_048, 124));
    assert_eq!((server.reads + server.merged_reads, client.reads + client.merged_reads), (22, 2));
}

#[test]
fn a_recording_with_a_gap_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path().join("gap");
    let mut client = Events::default();
    client.transfer("write", "tx", 0.0, 24, 24);
    client.sent += 1;
    client.transfer("write", "tx", 0.1, 24, 24);
    client.write(&prefix, 1, Side::Client);
    let error = Recording::open(&prefix).unwrap_err();
    assert_eq!(error.to_string(), "connection 1 client: offset 25 where 24 comes next");
    let error = Recording::open(&directory.path().join("none")).unwrap_err();
    assert!(error.to_string().starts_with("no recording"), "{error}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/cri").join(name)
}

async fn play(prefix: &Path, speed: f64, from_offset: Option<u64>) -> (SideReport, SideReport) {
    let directory = tempfile::tempdir().unwrap();
    let recording = Recording::open(prefix).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_spanlet-node"));
    let mut pair = Pair::start(program, prefix, &directory.path().join("cri.sock")).await.unwrap();
    let mut timeline = Timeline {
        first_ns: recording.first_ns,
        start_ns: monotonic_ns() + SECOND_NS / 5,
        speed,
        hold_ns: from_offset.map(|bytes| recording.reached_ns(bytes).unwrap()),
        resumed_ns: None,
    };
    pair.follow(timeline).await.unwrap();
    if from_offset.is_some() {
        pair.wait_until_holding().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        timeline.resumed_ns = Some(monotonic_ns());
        pair.follow(timeline).await.unwrap();
    }
    let reports = pair.finish().await.unwrap();
    let whole_ns = ((recording.last_ns - recording.first_ns) as f64 / speed) as u64;
    assert!(monotonic_ns() >= timeline.start_ns + whole_ns, "it was over too early");
    println!("{reports:?}");
    reports
}

/// As many reads, writes and bytes as recorded.
fn assert_same_calls(prefix: &Path, side: Side, report: &SideReport) {
    let recording = Recording::open(prefix).unwrap();
    let (mut reads, mut writes, mut bytes_read, mut bytes_written) = (0, 0, 0, 0);
    for connection in &recording.connections {
        for event in connection.events(side).unwrap() {
            match event.unwrap().action {
                Action::Read(part) => (reads, bytes_read) = (reads + 1, bytes_read + part.length),
                Action::Write(part) => (writes, bytes_written) = (writes + 1, bytes_written + part.length),
                _ => {}
            }
        }
    }
    let done = (report.reads + report.merged_reads, report.writes, report.bytes_read, report.bytes_written);
    assert_eq!(done, (reads, writes, bytes_read, bytes_written), "{side:?}");
}

/// Writes a recording's files.
#[derive(Default)]
struct Events {
    lines: Vec<String>,
    sent: u64,
    received: u64,
}

impl Events {
    fn call(&mut self, op: &str, at: f64) {
        self.lines.push(format!(r#"{{"t": {:.6}, "op": "{op}", "tid": "1", "ret": 0}}"#, 1e9 + at));
    }

    fn transfer(&mut self, op: &str, dir: &str, at: f64, len: u64, req: u64) {
        let position = if dir == "tx" { &mut self.sent } else { &mut self.received };
        let (t, off) = (1e9 + at, *position);
        *position += len;
        self.lines.push(format!(
            r#"{{"t": {t:.6}, "t_end": {t:.6}, "op": "{op}", "tid": "1", "dir": "{dir}", "off": {off}, "len": {len}, "req": {req}}}"#
        ));
    }

    fn write(&self, prefix: &Path, number: u32, side: Side) {
        let stem = format!("{}-{number}", prefix.display());
        let json = format!("[\n{}\n]\n", self.lines.join(",\n"));
        std::fs::write(format!("{stem}-{}-events.json", side.name()), json).unwrap();
        if side == Side::Client {
            for (name, length) in [("c2s", self.sent), ("s2c", self.received)] {
                let mut file = std::fs::File::create(format!("{stem}-client-{name}.bin")).unwrap();
                let bytes: Vec<u8> = (0..length).map(|index| (index * 7 % 251) as u8).collect();
                file.write_all(&bytes).unwrap();
            }
        }
    }
}
