//! An API server that does as it is told: pods, nodes and owners over real HTTP, watches as streams of chunks, versions that
//! can be compacted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::objects::{NODE, uid};
use crate::wire::{self, Request};

/// A running server; dropping it closes every connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Grows with each change that a watch must look at.
    changes: watch::Sender<u64>,
    tls: Option<TlsAcceptor>,
    running: Option<JoinSet<()>>,
}

/// What the server has and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct State {
    version: u64,
    /// By `<plural>/<namespace>/<name>`; nodes have no namespace.
    objects: BTreeMap<String, Value>,
    /// Events that watches are sent, with their versions.
    events: Vec<(u64, Value)>,
    /// Watches from an older version are told that it is gone.
    oldest: u64,
    /// Watches that began before this change are ended.
    ended: u64,
    /// Whether a version that is gone is told by the status of the answer rather than by an event.
    pub(crate) gone_by_status: bool,
    /// Most objects of a page, whatever is asked for.
    pub(crate) page: usize,
    /// The only token that is taken.
    pub(crate) token: Option<String>,
    /// Before each answer.
    pub(crate) delay: Duration,
    /// The status of every answer, if not what it should be.
    pub(crate) broken: Option<u16>,
    /// Paths that are not allowed.
    pub(crate) forbidden: Vec<&'static str>,
    requests: Vec<(Instant, Request)>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With a certificate for 127.0.0.1, signed by `tls/authority.pem`; both were made for these tests alone.
    pub(crate) async fn start_tls() -> Self {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let state = State { page: usize::MAX, ..State::default() };
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            state: Arc::new(Mutex::new(state)),
            changes: watch::Sender::new(0),
            tls,
            running: None,
        };
        server.listen().await;
        server.put("nodes", json!({"metadata": {"name": NODE, "uid": uid(NODE), "labels": {}}}));
        server
    }

    /// Listens where it did before, if it did.
    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, changes, tls) = (Arc::clone(&self.state), self.changes.clone(), self.tls.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connection.set_nodelay(true).unwrap(); // a head and its body are two writes
                let (state, changes, tls) = (Arc::clone(&state), changes.subscribe(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(connection, state, changes).await,
                        Some(tls) => {
                            if let Ok(connection) = tls.accept(connection).await {
                                serve(connection, state, changes).await;
                            }
                        }
                    }
                });
            }
        });
        self.running = Some(tasks);
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown().await;
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds or changes an object and tells the watches.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let is_new = state.objects.insert(key(plural, &object["metadata"]), object.clone()).is_none();
        let kind = if is_new { "ADDED" } else { "MODIFIED" };
        state.tell(json!({"type": kind, "object": object}));
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Changes the status of a pod.
    pub(crate) fn put_status(&self, namespace: &str, name: &str, status: Value) {
        let mut pod = self.state().objects[&format!("pods/{namespace}/{name}")].clone();
        pod["status"] = status;
        self.put("pods", pod);
    }

    pub(crate) fn delete(&self, namespace: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let mut pod = state.objects.remove(&format!("pods/{namespace}/{name}")).unwrap();
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell(json!({"type": "DELETED", "object": pod}));
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Sends watches a bookmark of a version that no object has; returns that version.
    pub(crate) fn bookmark(&self) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let metadata = json!({"resourceVersion": version.to_string()});
        state.tell(json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}}));
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
        version
    }

    /// Forgets all events and versions up to now.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.events.clear();
    }

    /// Ends every watch as a server does when their time is over.
    pub(crate) fn end_watches(&self) {
        let mut state = self.state();
        state.ended = *self.changes.borrow() + 1;
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The requests so far, with their times.
    pub(crate) fn requests(&self) -> Vec<(Instant, Request)> {
        self.state().requests.clone()
    }

    pub(crate) fn kubeconfig(&self, folder: &Path, token_file: &Path) -> PathBuf {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, include_str!("tls/authority.pem")).unwrap();
        let user = json!({"tokenFile": token_file});
        crate::kubeconfig::write(folder, &format!("{scheme}://{}", self.address), Some(&authority), &user)
    }
}

impl State {
    fn tell(&mut self, event: Value) {
        let version = self.version;
        self.events.push((version, event));
    }
}

fn key(plural: &str, metadata: &Value) -> String {
    let namespace = metadata["namespace"].as_str();
    let name = metadata["name"].as_str().unwrap();
    namespace.map_or_else(|| format!("{plural}/{name}"), |namespace| format!("{plural}/{namespace}/{name}"))
}

/// One connection, until either side closes it.
async fn serve(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<Mutex<State>>,
    mut changes: watch::Receiver<u64>,
) {
    let (reader, mut writer) = tokio::io::split(connection);
    let mut reader = BufReader::new(reader);
    while let Some(request) = Request::read(&mut reader).await {
        let (began, delay) = {
            let mut state = state.lock().unwrap();
            state.requests.push((Instant::now(), request.clone()));
            (*changes.borrow(), state.delay)
        };
        tokio::time::sleep(delay).await;
        let refusal = refusal(&state.lock().unwrap(), &request);
        let sent = match refusal {
            Some(status) => wire::answer(&mut writer, status, &failure(status)).await,
            None if request.is_watch() => stream(&mut writer, &request, began, &state, &mut changes).await,
            None => {
                let (status, body) = read(&state.lock().unwrap(), &request);
                wire::answer(&mut writer, status, &body).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn refusal(state: &State, request: &Request) -> Option<u16> {
    let token = state.token.as_ref().map(|token| format!("Bearer {token}"));
    let version = || request.query("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    if let Some(status) = state.broken {
        Some(status)
    } else if token.is_some() && request.authorization != token {
        Some(401)
    } else if state.forbidden.iter().any(|path| request.path.starts_with(path)) {
        Some(403)
    } else if request.is_watch() && state.gone_by_status && version() < state.oldest {
        Some(410)
    } else {
        None
    }
}

fn failure(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        _ => "ServiceUnavailable",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code})
}

/// A list of pods, or one object.
fn read(state: &State, request: &Request) -> (u16, Value) {
    let place: Vec<&str> = request
        .path
        .split('/')
        .filter(|part| !["", "api", "apis", "v1", "apps", "batch", "namespaces"].contains(part))
        .collect();
    let place = match place[..] {
        [plural] => return (200, list(state, request, plural)),
        [plural, name] => format!("{plural}/{name}"),
        [namespace, plural, name] => format!("{plural}/{namespace}/{name}"),
        _ => String::new(),
    };
    state.objects.get(&place).map_or_else(|| (404, failure(404)), |object| (200, object.clone()))
}

fn list(state: &State, request: &Request, plural: &str) -> Value {
    let objects = state.objects.iter().filter(|(key, _)| key.starts_with(&format!("{plural}/")));
    let selected: Vec<&Value> =
        objects.map(|(_, object)| object).filter(|object| is_selected(request, object)).collect();
    let first: usize = request.query("continue").map_or(0, |token| token.parse().unwrap());
    let limit = request.query("limit").map_or(usize::MAX, |limit| limit.parse().unwrap()).min(state.page);
    let items: Vec<&Value> = selected.iter().copied().skip(first).take(limit).collect();
    let next = first + items.len();
    let more = if next < selected.len() { next.to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": state.version.to_string(), "continue": more});
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
}

fn is_selected(request: &Request, object: &Value) -> bool {
    let node = request.query("fieldSelector").and_then(|selector| selector.strip_prefix("spec.nodeName="));
    node.is_none_or(|node| object["spec"]["nodeName"] == node)
}

/// A watch from the version that is asked for until it is ended.
async fn stream(
    writer: &mut (impl AsyncWrite + Unpin),
    request: &Request,
    began: u64,
    state: &Mutex<State>,
    changes: &mut watch::Receiver<u64>,
) -> std::io::Result<()> {
    let mut version: u64 = request.query("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    wire::begin(writer).await?;
    loop {
        changes.borrow_and_update();
        let (is_gone, is_ended, events) = {
            let state = state.lock().unwrap();
            let new = state.events.iter().filter(|(told, _)| *told > version);
            let events: Vec<(u64, Value)> = new.cloned().collect();
            (version < state.oldest, state.ended > began, events)
        };
        if is_gone {
            wire::chunk(writer, &json!({"type": "ERROR", "object": failure(410)})).await?;
            return wire::end(writer).await;
        }
        for (told, event) in events {
            version = told;
            if event["type"] == "BOOKMARK" || is_selected(request, &event["object"]) {
                wire::chunk(writer, &event).await?;
            }
        }
        if is_ended {
            return wire::end(writer).await;
        }
        if changes.changed().await.is_err() {
            return Ok(());
        }
    }
}
