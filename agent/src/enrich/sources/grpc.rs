//! A gRPC client on a unix socket, for the few calls that the agent makes itself. Connections are short: none is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// For connecting, and for each call. The runtime answers in milliseconds; one that does not is busy with its pods.
const DEADLINE: Duration = Duration::from_secs(5);

/// kubelet's own limit for answers of the runtime (`maxMsgSize`).
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A call that the agent made itself failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("connecting to {path}")]
    Connect { path: PathBuf, source: tonic::transport::Error },
    #[error("{method}: {status}")]
    Failed { method: &'static str, status: tonic::Status },
    #[error("{what} took more than {DEADLINE:?}")]
    Late { what: String },
}

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
}

// === impl Client ===

impl Client {
    /// Connects to the socket at `path`.
    pub(super) async fn connect(path: &Path) -> Result<Self, CallError> {
        let connect_error = |source| CallError::Connect { path: path.to_owned(), source };
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).map_err(connect_error)?;
        let connecting = tokio::time::timeout(DEADLINE, endpoint.connect()).await;
        let late = || CallError::Late { what: format!("connecting to {}", path.display()) };
        let channel = connecting.map_err(|_| late())?.map_err(connect_error)?;
        Ok(Self { channel })
    }

    /// One unary call of `method`, `/package.Service/Method`.
    pub(super) async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let answer = tokio::time::timeout(DEADLINE, self.unary(method, request)).await;
        let answer = answer.map_err(|_| CallError::Late { what: method.to_owned() })?;
        answer.map_err(|status| CallError::Failed { method, status })
    }

    async fn unary<Q, A>(&self, method: &'static str, request: Q) -> Result<A, tonic::Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(request);
        request.set_timeout(DEADLINE); // the server may stop as well
        let path = http::uri::PathAndQuery::from_static(method);
        Ok(client.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }
}
