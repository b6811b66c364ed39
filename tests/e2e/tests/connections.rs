//! Connections that come and go in numbers: what the kernel side keeps of each is given back when it is closed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use spanlet::api::CallEntry;
use spanlet_e2e::Turn;
use spanlet_node::agent::{self, Agent, Ports};
use spanlet_node::http2;

/// More than the kernel side knows at once, which are 4,096.
const CONNECTIONS: u32 = 5_000;
/// Connections whose sockets' memory others get.
const REUSED: u32 = 500;
/// Connections whose client goes in the middle of an answer, which is more than a socket takes unread.
const LEFT: u32 = 200;
const UNREAD_BYTES: usize = 4 << 20;
/// So many, then a pause: the agent is to keep up.
const BURST: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn more_connections_than_are_known_at_once_are_all_told() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let mut agent = start(directory.path(), &socket, "auto").await;
    let listener = UnixListener::bind(&socket).unwrap();
    for number in 0..CONNECTIONS {
        let mut client = UnixStream::connect(&socket).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        call(&mut client, &mut server, number);
        if number % BURST == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }

    let last = tokio::time::timeout(PATIENCE, told(&agent, CONNECTIONS - 1)).await.expect("the last call is told");
    assert_eq!(last.method.as_deref(), Some(http2::METHOD));
    assert_eq!(last.status, Some(0));
    assert!(last.handling_ns.is_some(), "{last:?}");
    let events = agent.status().await.unwrap().events;
    assert_eq!(events.delivered["opened"], u64::from(CONNECTIONS), "{events:?}");
    assert_eq!(events.delivered["headers"], 3 * u64::from(CONNECTIONS), "{events:?}");
    assert_eq!(events.lost, [], "{events:?}");
    agent.stop().await.unwrap();
}

/// Both ends are closed unread, which tracepoints of sockets do not tell; their memory goes to the next sockets that are made.
#[tokio::test]
async fn what_gets_the_memory_of_a_watched_socket_is_not_watched() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let (socket, other) = (directory.path().join("cri.sock"), directory.path().join("other.sock"));
    let mut agent = start(directory.path(), &socket, "tracepoint").await;
    let (listener, other_listener) = (UnixListener::bind(&socket).unwrap(), UnixListener::bind(&other).unwrap());
    for number in (0..2 * REUSED).step_by(2) {
        let mut client = UnixStream::connect(&socket).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        call(&mut client, &mut server, number);
        drop((client, server));
        let (mut client, mut server) = if number % 4 == 0 {
            UnixStream::pair().unwrap()
        } else {
            (UnixStream::connect(&other).unwrap(), other_listener.accept().unwrap().0)
        };
        call(&mut client, &mut server, number + 1);
        if number % BURST == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }

    tokio::time::timeout(PATIENCE, told(&agent, 2 * REUSED - 2)).await.expect("the last call is told");
    let events = agent.status().await.unwrap().events;
    assert_eq!(events.delivered["opened"], u64::from(REUSED), "{events:?}");
    assert_eq!(events.delivered["headers"], 3 * u64::from(REUSED), "{events:?}");
    assert_eq!(events.lost, [], "{events:?}");
    agent.stop().await.unwrap();
}

/// A client that goes while one thread writes it an answer and another waits for its next request: whichever comes back first, what
/// the socket has taken of the answer is told.
#[tokio::test]
async fn an_answer_that_is_being_written_when_its_client_goes_is_told() {
    let Some(_turn) = Turn::take().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let mut agent = start(directory.path(), &socket, "tracepoint").await;
    let listener = UnixListener::bind(&socket).unwrap();
    for number in 0..LEFT {
        let mut client = UnixStream::connect(&socket).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&request(number)).unwrap();
        assert_ne!(server.read(&mut [0; 1024]).unwrap(), 0);
        let mut writer = server.try_clone().unwrap();
        let answer = [http2::headers(0, 1, &[0x88]), http2::data(0, 1, &vec![0; UNREAD_BYTES])].concat();
        let writes = std::thread::spawn(move || writer.write_all(&answer).is_err());
        let reads = std::thread::spawn(move || server.read(&mut [0; 1024]).unwrap_or(0));
        tokio::time::sleep(PAUSE).await; // both wait
        drop(client);
        assert!(writes.join().unwrap(), "the answer fits into the socket");
        assert_eq!(reads.join().unwrap(), 0);
    }

    tokio::time::timeout(PATIENCE, told(&agent, LEFT - 1)).await.expect("the last call is told");
    let events = agent.status().await.unwrap().events;
    assert_eq!(events.delivered["headers"], 2 * u64::from(LEFT), "{events:?}");
    assert_eq!(events.delivered["closed"], 2 * u64::from(LEFT), "{events:?}");
    assert_eq!(events.lost, [], "{events:?}");
    agent.stop().await.unwrap();
}

/// An agent that watches this socket only.
async fn start(directory: &Path, socket: &Path, mode: &str) -> Agent {
    let ports = Ports::free().unwrap();
    let mut config = agent::config_of_own_connections(&ports, socket);
    config["capture"]["mode"] = json!(mode);
    let mut agent = Agent::start(directory, ports, &config).unwrap();
    let attached = agent.wait_until_attached().await.unwrap();
    assert!(mode == "auto" || attached == mode, "{attached}");
    agent
}

/// Waits until a call is told to be over.
async fn told(agent: &Agent, number: u32) -> CallEntry {
    loop {
        let call = agent.call(&http2::traceparent(number)).await.unwrap();
        if let Some(call) = call.filter(CallEntry::is_over) {
            return call;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A call from its first byte to its last, on a connection of its own.
fn call(client: &mut UnixStream, server: &mut UnixStream, number: u32) {
    let request = request(number);
    client.write_all(&request).unwrap();
    let mut buffer = [0; 1024];
    assert_eq!(server.read(&mut buffer).unwrap(), request.len());
    let answer = http2::answer(1);
    server.write_all(&answer).unwrap();
    assert_eq!(client.read(&mut buffer).unwrap(), answer.len());
}

fn request(number: u32) -> Vec<u8> {
    [http2::preface(), http2::request(1, &http2::traceparent(number))].concat()
}
