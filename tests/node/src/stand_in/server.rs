//! A gRPC server on a unix socket that answers as a test tells it, and remembers what it was asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// gRPC's code for what is not there.
const NOT_FOUND: u8 = 5;
/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Dropping it closes the socket and its connections.
#[derive(Debug)]
pub struct Server {
    answers: Answers,
    task: JoinHandle<()>,
}

/// What is answered to each method, in turn; the last answer stays.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    by_method: HashMap<&'static str, Vec<Bytes>>,
    asked: Vec<(String, Bytes)>,
}

impl Server {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When something is there already.
    pub fn listen(path: &Path, answers: &Answers) -> io::Result<Self> {
        let task = tokio::spawn(serve(UnixListener::bind(path)?, answers.clone()));
        Ok(Self { answers: answers.clone(), task })
    }

    /// The requests to this method so far, as far as they can be understood.
    pub fn asked<M: Message + Default>(&self, method: &str) -> Vec<M> {
        let shared = self.answers.lock();
        let to_method = shared.asked.iter().filter(|(path, _)| path == method);
        to_method.filter_map(|(_, body)| M::decode(body.clone()).ok()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answers {
    /// One more answer to `/package.Service/Method`.
    pub fn add(&self, method: &'static str, answer: &impl Message) {
        let answer = Bytes::from(answer.encode_to_vec());
        self.lock().by_method.entry(method).or_default().push(answer);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, method: &str, request: Bytes) -> Option<Bytes> {
        let mut shared = self.lock();
        shared.asked.push((method.to_owned(), request));
        let answers = shared.by_method.get_mut(method)?;
        if answers.len() > 1 { Some(answers.remove(0)) } else { answers.first().cloned() }
    }
}

async fn serve(listener: UnixListener, answers: Answers) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let answers = answers.clone();
        let service = hyper::service::service_fn(move |request| answer(request, answers.clone()));
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        connections.spawn(async move { drop(builder.serve_connection(TokioIo::new(stream), service).await) });
    }
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: http::Request<Incoming>, answers: Answers) -> Result<http::Response<Body>, Infallible> {
    let method = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = body.slice(PREFIX_BYTES.min(body.len())..);
    let mut trailers = http::HeaderMap::new();
    let mut frames = Vec::new();
    match answers.next(&method, message) {
        Some(answer) => {
            let mut data = BytesMut::new();
            data.put_u8(0); // not compressed
            data.put_u32(answer.len() as u32);
            data.put(answer);
            frames.push(Ok(Frame::data(data.freeze())));
            trailers.insert("grpc-status", 0.into());
        }
        None => drop(trailers.insert("grpc-status", u16::from(NOT_FOUND).into())),
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = http::Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    Ok(response)
}
