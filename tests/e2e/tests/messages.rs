//! What is told of a message does not hang on how it is written: the kernel side has a short way for one that comes in one piece, and
//! a long one for parts. Here each goes both ways, and both must tell the same.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use spanlet::capture::record::records;
use spanlet_abi::event::{Kind, field, headers};
use spanlet_e2e::Turn;
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::http2::{self, END_STREAM, literal};

/// Messages that are made up, beside those of the table.
const MADE_UP: usize = 1_000;
const SEED: u64 = 20_261_128;
/// So many calls, then a pause: the agent is to keep up.
const BURST: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A message of a request and of its answer, with its prefix.
type Exchange = [Vec<u8>; 2];

#[tokio::test]
async fn a_message_says_the_same_in_one_piece_and_in_two() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let (socket, events) = (directory.path().join("cri.sock"), directory.path().join("events"));
    let ports = Ports::free().unwrap();
    let mut config = agent::config_of_own_connections(&ports, &socket);
    config["capture"]["dump_events"] = json!(events);
    let mut agent = Agent::start(directory.path(), ports, &config).unwrap();
    agent.wait_until_attached().await.unwrap();

    let mut random = fastrand::Rng::with_seed(SEED);
    let made_up = std::iter::repeat_with(|| [made_up(&mut random), made_up(&mut random)]).take(MADE_UP);
    let exchanges: Vec<Exchange> = table().into_iter().map(|(exchange, _)| exchange).chain(made_up).collect();
    let mut connection = Connection::open(&socket);
    for (number, exchange) in exchanges.iter().enumerate() {
        connection.call(exchange, [0, 0]);
        connection.call(exchange, exchange.each_ref().map(|message| random.usize(1..message.len())));
        if number % BURST == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await; // the agent looks into the ring ten times a second
    assert_eq!(agent.status().await.unwrap().events.lost, []);
    agent.stop().await.unwrap();

    let told = told(&std::fs::read(&events).unwrap());
    let of_stream = |stream: u32, end: u8| told.get(&(stream, end)).cloned().unwrap_or_default();
    let mut with_a_field = 0;
    for (number, exchange) in exchanges.iter().enumerate() {
        let stream = 4 * number as u32 + 1;
        for (end, message) in (0..).zip(exchange) {
            let (whole, cut) = (of_stream(stream, end), of_stream(stream + 2, end));
            assert_eq!(whole, cut, "end {end}: {message:02x?}");
            with_a_field += usize::from(!whole.fields.is_empty());
        }
    }
    let messages = 2 * exchanges.len();
    assert!(with_a_field > messages / 10 && with_a_field < messages * 9 / 10, "{with_a_field} of {messages}");
    for (number, (exchange, expected)) in table().into_iter().enumerate() {
        for (end, expected) in (0..).zip(expected) {
            let fields = of_stream(4 * number as u32 + 1, end).fields;
            let told: Vec<&[u8]> = fields.iter().map(|field| field.content.as_slice()).collect();
            assert_eq!(told, expected.as_slice(), "end {end}: {exchange:02x?}");
        }
    }
}

/// Messages, and what is to be told of the request's and of the answer's.
fn table() -> Vec<(Exchange, [Vec<&'static [u8]>; 2])> {
    let text = |text: &str| field_1(text.as_bytes());
    let rows = [
        (text("pod-1"), vec!["pod-1".as_bytes()], text("pod-1"), vec![]),
        (text(ID), vec![ID.as_bytes()], text(ID), vec![ID.as_bytes()]),
        (field_1(&text("nested")), vec![&b"nested"[..]], field_1(&text(ID)), vec![]),
        (field_1(&[&text("a")[..], &[0x12, 1, b'b']].concat()), vec![&b"a"[..]], text(&ID.to_uppercase()), vec![]),
        (field_1(&[1, 2, 3]), vec![], vec![], vec![]),
        (vec![0x12, 1, b'x'], vec![], vec![0x12, 1, b'x'], vec![]),
        (field_1(&[]), vec![], field_1(&[]), vec![]),
    ];
    rows.into_iter()
        .map(|(request, of_request, answer, of_answer)| {
            ([with_prefix(0, 0, &request), with_prefix(0, 0, &answer)], [of_request, of_answer])
        })
        .collect()
}

/// Field 1 with these bytes, fewer than 128.
fn field_1(bytes: &[u8]) -> Vec<u8> {
    [&[0x0a, bytes.len() as u8], bytes].concat()
}

/// A length-prefixed message; `beyond` is what its length says too much.
fn with_prefix(compressed: u8, beyond: i32, bytes: &[u8]) -> Vec<u8> {
    [&[compressed], &(bytes.len() as i32 + beyond).to_be_bytes()[..], bytes].concat()
}

/// Something like a message: mostly right, and otherwise wrong where a parser may trip.
fn made_up(random: &mut fastrand::Rng) -> Vec<u8> {
    const BYTES: &[u8] = b"\x0a\x0a\x0a\x12\x08\x00\x01\x02\x03\x40\x7f\x80\xff\x20\x1fa/";
    let mut some = |most: usize| -> Vec<u8> {
        let count = random.usize(..=most);
        std::iter::repeat_with(|| BYTES[random.usize(..BYTES.len())]).take(count).collect()
    };
    let (start, end, long) = (some(12), some(6), some(100));
    let mut bytes = match random.u8(..6) {
        0 => start,
        1 => [field_1(&[b"text", &start[..]].concat()), end].concat(),
        2 => [field_1(&[field_1(&start), end.clone()].concat()), end].concat(),
        3 => [field_1(ID.as_bytes()), end].concat(),
        4 => [field_1(&long), end].concat(),
        _ => [&[0x0a, 0x80 | 22, 2][..], &[b'l'; 278], &end].concat(), // a length of two bytes
    };
    if random.u8(..4) == 0 && !bytes.is_empty() {
        let at = random.usize(..bytes.len());
        bytes[at] = BYTES[random.usize(..BYTES.len())];
    }
    let beyond = if random.u8(..8) == 0 { random.i32(-2..3).max(-(bytes.len() as i32)) } else { 0 };
    with_prefix(u8::from(random.u8(..16) == 0), beyond, &bytes)
}

/// Both ends of a watched connection.
struct Connection {
    client: UnixStream,
    server: UnixStream,
    stream: u32,
}

impl Connection {
    fn open(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let mut client = UnixStream::connect(socket).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&http2::preface()).unwrap();
        Self { client, server, stream: 1 }
    }

    /// A call whose messages are cut behind so many bytes; 0: not at all.
    fn call(&mut self, [request, answer]: &Exchange, [cut_request, cut_answer]: [usize; 2]) {
        let block = [&[0x83, 0x86][..], &literal(":path", "/runtime.v1.RuntimeService/Version")].concat();
        let begin = http2::headers(0, self.stream, &block);
        let data = http2::data(END_STREAM, self.stream, request);
        write(&mut self.client, &begin, &data, cut_request, &[]);
        read(&mut self.server);
        let begin = http2::headers(0, self.stream, &[0x88]); // :status 200
        let data = http2::data(0, self.stream, answer);
        let trailers = http2::headers(END_STREAM, self.stream, &literal("grpc-status", "0"));
        write(&mut self.server, &begin, &data, cut_answer, &trailers);
        read(&mut self.client);
        self.stream += 2;
    }
}

fn write(to: &mut UnixStream, begin: &[u8], data: &[u8], cut: usize, end: &[u8]) {
    const FRAME_HEADER_BYTES: usize = 9;
    if cut == 0 {
        to.write_all(&[begin, data, end].concat()).unwrap();
        return;
    }
    let (first, second) = data.split_at(FRAME_HEADER_BYTES + cut);
    to.write_all(&[begin, first].concat()).unwrap();
    to.write_all(&[second, end].concat()).unwrap();
}

/// All that is there: less than the buffer holds.
fn read(from: &mut UnixStream) {
    let mut buffer = [0; 4096];
    assert!(from.read(&mut buffer).unwrap() < buffer.len());
}

/// What was told of one end's message on a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    fields: Vec<Field>,
    ends: u32,
    streaming: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    number: u32,
    /// `NESTED` and `CUT` of `event::field`.
    note: u32,
    content: Vec<u8>,
    complete: bool,
}

/// What a file of ring entries holds, by stream and end.
fn told(mut dump: &[u8]) -> BTreeMap<(u32, u8), Told> {
    let mut told: BTreeMap<(u32, u8), Told> = BTreeMap::new();
    while let Some((length, rest)) = dump.split_first_chunk::<4>() {
        let (entry, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        dump = rest;
        for record in records(entry).map(Result::unwrap) {
            let (head, note) = (record.head, record.head.note);
            let of_stream = told.entry((head.stream, head.end)).or_default();
            match record.kind {
                Kind::Field => {
                    if note & field::BEGINS != 0 {
                        let note = note & (field::NESTED | field::CUT);
                        of_stream.fields.push(Field { number: head.field, note, content: Vec::new(), complete: false });
                    }
                    let last = of_stream.fields.last_mut().expect("a field begins with its first part");
                    last.content.extend(record.data);
                    last.complete |= note & field::COMPLETE != 0;
                    of_stream.ends += u32::from(note & field::ENDS != 0);
                }
                Kind::Headers => of_stream.ends += u32::from(note & headers::ENDS != 0),
                Kind::DataEnd => of_stream.ends += 1,
                Kind::Streaming => of_stream.streaming += 1,
                _ => {}
            }
        }
    }
    told
}
