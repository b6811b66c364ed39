//! As much of HTTP/1.1 as the scripted API server needs.

use std::collections::HashMap;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A request without a body, as all that only read are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: HashMap<String, String>,
    pub(crate) authorization: Option<String>,
}

impl Request {
    /// The next request on a connection; `None` when it is closed.
    pub(crate) async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Self> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines.first()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let header = |name: &str| {
            let matching = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
            lines.iter().find(matching).map(|line| line[name.len() + 2..].to_owned())
        };
        Some(Self {
            method,
            path: path.to_owned(),
            query: query.map(|(name, value)| (decoded(name), decoded(value))).collect(),
            authorization: header("authorization"),
        })
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.query("watch") == Some("true") || self.query("watch") == Some("1")
    }
}

/// Answers with a whole body; an error if the client has gone.
pub(crate) async fn answer(
    writer: &mut (impl AsyncWrite + Unpin),
    status: u16,
    body: &serde_json::Value,
) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(body.as_bytes()).await?;
    writer.flush().await
}

/// Begins an answer of chunks.
pub(crate) async fn begin(writer: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 -\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await?;
    writer.flush().await
}

/// Sends one line as a chunk.
pub(crate) async fn chunk(writer: &mut (impl AsyncWrite + Unpin), line: &serde_json::Value) -> std::io::Result<()> {
    let line = format!("{line}\n");
    writer.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
    writer.flush().await
}

/// Ends an answer of chunks.
pub(crate) async fn end(writer: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    writer.write_all(b"0\r\n\r\n").await?;
    writer.flush().await
}
