//! Where the API server is and who asks.

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::{Api, Pace};
use crate::config::KubernetesAccess;

/// There is no client to ask with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("reading the service account of this pod: {0}")]
    InCluster(#[from] InClusterError),
    #[error("reading the kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("making a client of it: {0}")]
    Client(#[from] kube::Error),
}

/// A client with the credentials as they are in the files now. It reads a token's file again each minute by itself.
pub(super) async fn connect(api: &Api) -> Result<Client, ConnectError> {
    let mut config = match (api.config.kubernetes, &api.config.kubeconfig) {
        (KubernetesAccess::Kubeconfig, Some(path)) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        (KubernetesAccess::Kubeconfig, None) => Config::from_kubeconfig(&KubeConfigOptions::default()).await?,
        _ => Config::incluster()?,
    };
    apply_pace(&mut config, &api.pace);
    Ok(Client::try_from(config)?)
}

fn apply_pace(config: &mut Config, pace: &Pace) {
    config.default_retry = false; // there is one place that tries again
    config.connect_timeout = Some(pace.answer_within);
    // A watch is silent for as long as nothing happens, but never longer than it lasts.
    config.read_timeout =
        Some(pace.answer_within.saturating_add(std::time::Duration::from_secs(pace.watch_seconds.into())));
    config.reset_reader_on_write = true;
}
