//! The recorded OTLP requests: found in their file, moved in time, sent as the SDKs sent them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use super::recording::Recording;
use super::shift::shift_times;
use super::timeline::{Timeline, monotonic_ns};
use crate::raw::{EXPORT_PATH, RawCodec};

/// A request without a recorded arrival comes this long after the end of its newest span.
const USUAL_DELAY_NS: u64 = 500_000_000;
/// An SDK's pause before it tries again, when the receiver names none.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// After this a request counts as lost, so that a replay ends.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The longest varint that is a length.
const MAX_PREFIX_BYTES: usize = 10;

/// Where each recorded request lies, by arrival.
#[derive(Debug)]
pub(super) struct Requests {
    file: Option<File>,
    index: Vec<Request>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    arrival_ns: u64,
    offset: u64,
    length: usize,
}

/// What came of sending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) requests: u64,
    pub(super) spans: u64,
    pub(super) acknowledged_spans: u64,
    /// Answers UNAVAILABLE.
    pub(super) retries: u64,
}

impl Requests {
    /// Indexes the recording's OTLP file, which it need not have.
    pub(super) fn open(recording: &Recording) -> Result<Self> {
        let Some(path) = recording.otlp_path() else { return Ok(Self { file: None, index: Vec::new() }) };
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut index = index(&file).with_context(|| format!("read {}", path.display()))?;
        if let Some(path) = recording.arrivals_path() {
            set_arrivals(&mut index, &path).with_context(|| format!("read {}", path.display()))?;
        }
        index.sort_by_key(|request| request.arrival_ns);
        Ok(Self { file: Some(file), index })
    }

    /// Recorded arrival of the last request, Unix nanoseconds.
    pub(super) fn last_ns(&self) -> Option<u64> {
        self.index.last().map(|request| request.arrival_ns)
    }

    /// Sends each request when it is due, none before the timeline (watched) lets it, and waits for all answers.
    /// `wall_offset_ns` turns CLOCK_MONOTONIC into Unix time.
    pub(super) async fn send(
        self,
        endpoint: &str,
        mut timeline: watch::Receiver<Timeline>,
        wall_offset_ns: u64,
        acknowledged: Arc<watch::Sender<u64>>,
    ) -> Result<Sent> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect_lazy();
        let mut total = Sent::default();
        let mut sending = JoinSet::new();
        for request in &self.index {
            let body = self.read(request)?;
            // An agent that starts at the end of a hold gets what would have been sent before as a retry.
            let now =
                *timeline.wait_for(|timeline| timeline.hold_ns.is_none() || timeline.resumed_ns.is_some()).await?;
            let due_ns = now.due_ns(request.arrival_ns).expect("nothing stands still");
            tokio::time::sleep(Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()))).await;
            let mut body = body;
            let moved = |ns| now.due_ns(ns).expect("nothing stands still") + wall_offset_ns;
            let spans = shift_times(&mut body, &moved)?.spans;
            total.requests += 1;
            total.spans += spans;
            sending.spawn(send_one(channel.clone(), body.into(), spans, acknowledged.clone()));
        }
        while let Some(sent) = sending.join_next().await {
            total.retries += sent?;
        }
        total.acknowledged_spans = *acknowledged.borrow();
        Ok(total)
    }

    fn read(&self, request: &Request) -> Result<Vec<u8>> {
        let mut body = vec![0; request.length];
        let file = self.file.as_ref().expect("an index has a file");
        file.read_exact_at(&mut body, request.offset).context("read a recorded OTLP request")?;
        Ok(body)
    }
}

/// Sends until it is acknowledged, refused for good, or too old. Returns the retries.
async fn send_one(channel: Channel, body: Bytes, spans: u64, acknowledged: Arc<watch::Sender<u64>>) -> u64 {
    let started = tokio::time::Instant::now();
    let mut retries = 0;
    loop {
        let status = match export(channel.clone(), body.clone()).await {
            Ok(()) => {
                acknowledged.send_modify(|count| *count += spans);
                return retries;
            }
            Err(status) => status,
        };
        if status.code() != tonic::Code::Unavailable || started.elapsed() > GIVE_UP {
            eprintln!("a request of {spans} spans was not taken: {status}");
            return retries;
        }
        retries += 1;
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        tokio::time::sleep(asked.unwrap_or(RETRY_PAUSE)).await;
    }
}

async fn export(channel: Channel, body: Bytes) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(EXPORT_PATH);
    client.unary(tonic::Request::new(body), path, RawCodec).await?;
    Ok(())
}

/// Goes through the file once; each arrival is set to what it is without a record of it.
fn index(file: &File) -> Result<Vec<Request>> {
    let mut reader = BufReader::new(file);
    let mut index = Vec::new();
    let mut offset = 0;
    while let Some((prefix, length)) = length_prefix(&mut reader)? {
        offset += prefix;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).with_context(|| format!("request {}", index.len() + 1))?;
        let contents = shift_times(&mut body, &|ns| ns).with_context(|| format!("request {}", index.len() + 1))?;
        index.push(Request { arrival_ns: contents.newest_end_ns + USUAL_DELAY_NS, offset, length });
        offset += length as u64;
    }
    Ok(index)
}

/// The next request's length and how many bytes told it; `None` at the end of the file.
fn length_prefix(reader: &mut impl BufRead) -> Result<Option<(u64, usize)>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut prefix = Vec::with_capacity(MAX_PREFIX_BYTES);
    loop {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        prefix.push(byte[0]);
        if byte[0] < 0x80 {
            let length = prost::decode_length_delimiter(prefix.as_slice())?;
            return Ok(Some((prefix.len() as u64, length)));
        }
        if prefix.len() == MAX_PREFIX_BYTES {
            bail!("no length at the start of a request");
        }
    }
}

/// Line n tells when request n arrived.
fn set_arrivals(index: &mut [Request], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Line {
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        recv_unix_nano: u64,
    }
    let mut count = 0;
    for line in lines(path)? {
        let Some(request) = index.get_mut(count) else { bail!("more lines than requests ({})", index.len()) };
        let line: Line = serde_json::from_str(&line?).with_context(|| format!("line {}", count + 1))?;
        request.arrival_ns = line.meta.recv_unix_nano;
        count += 1;
    }
    if count < index.len() {
        bail!("{count} lines for {} requests", index.len());
    }
    Ok(())
}

/// The lines of a file, whether or not it is compressed.
fn lines(path: &Path) -> Result<Box<dyn Iterator<Item = std::io::Result<String>>>> {
    const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b]; // RFC 1952 §2.3.1
    let mut file = File::open(path)?;
    let mut start = [0; 2];
    let compressed = file.read(&mut start)? == 2 && start == GZIP_MAGIC;
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::new(file);
    Ok(if compressed {
        Box::new(BufReader::new(MultiGzDecoder::new(reader)).lines())
    } else {
        Box::new(reader.lines())
    })
}
