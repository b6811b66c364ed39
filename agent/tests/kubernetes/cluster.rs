//! What a scenario needs of a cluster, scripted or real.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::real::RealServer;
use crate::server::Server;

/// A cluster with pods in the namespace `default`.
pub(crate) enum Cluster {
    Scripted(Server),
    Real(Box<RealServer>),
}

impl Cluster {
    pub(crate) async fn create(&self, pod: &Value) {
        match self {
            Self::Scripted(server) => server.put("pods", pod.clone()),
            Self::Real(server) => server.create(pod).await,
        }
    }

    pub(crate) async fn set_status(&self, pod: &str, status: &Value) {
        match self {
            Self::Scripted(server) => server.put_status("default", pod, status.clone()),
            Self::Real(server) => server.set_status(pod, status).await,
        }
    }

    pub(crate) async fn delete(&self, pod: &str) {
        match self {
            Self::Scripted(server) => server.delete("default", pod),
            Self::Real(server) => server.delete(pod).await,
        }
    }

    pub(crate) async fn stop(&mut self) {
        match self {
            Self::Scripted(server) => server.stop().await,
            Self::Real(server) => server.stop().await,
        }
    }

    pub(crate) async fn start_again(&mut self) {
        match self {
            Self::Scripted(server) => server.listen().await,
            Self::Real(server) => server.start_again().await,
        }
    }

    /// A kubeconfig with what a token needs in `folder`.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> PathBuf {
        match self {
            Self::Scripted(server) => {
                let token = folder.join("token");
                std::fs::write(&token, "first").unwrap();
                server.kubeconfig(folder, &token)
            }
            Self::Real(server) => server.kubeconfig(folder),
        }
    }

    /// The uid that the cluster gave the pod.
    pub(crate) async fn uid(&self, pod: &str) -> String {
        match self {
            Self::Scripted(_) => crate::objects::uid(pod),
            Self::Real(server) => server.uid(pod).await,
        }
    }
}
