//! A real kube-apiserver over a real etcd, where `KUBE_APISERVER` names the one and `ETCD` or `PATH` has the other.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::agent::PATIENCE;

const TOKEN: &str = "test-token";

/// A running kube-apiserver with its etcd; both end with it.
pub(crate) struct RealServer {
    folder: tempfile::TempDir,
    binary: PathBuf,
    address: SocketAddr,
    etcd_client: SocketAddr,
    _etcd: Child,
    server: Option<Child>,
}

impl RealServer {
    /// `None`, said aloud, where the machine has no API server.
    pub(crate) async fn start() -> Option<Self> {
        let Some(binary) = std::env::var_os("KUBE_APISERVER").map(PathBuf::from) else {
            println!("skipped: KUBE_APISERVER does not name a kube-apiserver");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (etcd_client, peer, address) = (free_address(), free_address(), free_address());
        let etcd = std::env::var_os("ETCD").unwrap_or_else(|| "etcd".into());
        let started = Command::new(etcd)
            .args(["--name", "test", "--data-dir", folder.path().join("etcd").to_str().unwrap()])
            .args(["--listen-client-urls", &format!("http://{etcd_client}")])
            .args(["--advertise-client-urls", &format!("http://{etcd_client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("test=http://{peer}")])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let etcd = match started {
            Ok(etcd) => etcd,
            Err(error) => {
                println!("skipped: no etcd by ETCD or PATH: {error}");
                return None;
            }
        };
        let key = folder.path().join("service-account.key");
        let made =
            Command::new("openssl").args(["genrsa", "-out", key.to_str().unwrap(), "2048"]).output().await.unwrap();
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(folder.path().join("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n")).unwrap();
        let mut server = Self { folder, binary, address, etcd_client, _etcd: etcd, server: None };
        server.start_again().await;
        Some(server)
    }

    pub(crate) async fn start_again(&mut self) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let key = path("service-account.key");
        let server = Command::new(&self.binary)
            .args(["--etcd-servers", &format!("http://{}", self.etcd_client)])
            .args(["--bind-address", "127.0.0.1", "--secure-port", &self.address.port().to_string()])
            .args(["--cert-dir", &path("certificates"), "--token-auth-file", &path("tokens.csv")])
            .args(["--service-account-issuer", "https://test", "--service-account-key-file", &key])
            .args(["--service-account-signing-key-file", &key])
            .args(["--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("KUBE_APISERVER can be run");
        self.server = Some(server);
        let ready = async {
            loop {
                // Made by the server itself some time after it is ready.
                let request = http::Request::get("/api/v1/namespaces/default").body(Vec::new()).unwrap();
                if self.client().await.request_text(request).await.is_ok() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 3, ready).await.expect("kube-apiserver becomes ready");
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await.unwrap();
        }
    }

    pub(crate) fn kubeconfig(&self, folder: &Path) -> PathBuf {
        crate::kubeconfig::write(folder, &format!("https://{}", self.address), None, &json!({"token": TOKEN}))
    }

    pub(crate) async fn create(&self, pod: &Value) {
        let mut pod = pod.clone();
        let metadata = pod["metadata"].as_object_mut().unwrap();
        for set_by_server in ["uid", "creationTimestamp", "managedFields"] {
            metadata.remove(set_by_server);
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().await.create(&PostParams::default(), &pod).await.unwrap();
    }

    pub(crate) async fn set_status(&self, pod: &str, status: &Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods().await.patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn delete(&self, pod: &str) {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods().await.delete(pod, &at_once).await.unwrap();
    }

    pub(crate) async fn uid(&self, pod: &str) -> String {
        let found = self.pods().await.get_opt(pod).await.unwrap();
        found.and_then(|pod| pod.metadata.uid).expect("the pod is there")
    }

    async fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client().await, "default")
    }

    async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(self.kubeconfig(self.folder.path())).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
