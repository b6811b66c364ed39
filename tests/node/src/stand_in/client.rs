//! One call as kubelet makes it: to a socket, with or without a trace.

use std::path::Path;

use anyhow::{Context as _, Result};
use prost::Message;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Calls `/package.Service/Method` on a connection of its own; the answer is not looked at.
///
/// # Errors
/// When nothing listens, or the answer is an error.
pub async fn call<M>(socket: &Path, method: &'static str, request: M, traceparent: Option<&str>) -> Result<()>
where
    M: Message + Send + Sync + 'static,
{
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.connect().await.with_context(|| format!("connect to {}", socket.display()))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let mut request = tonic::Request::new(request);
    if let Some(value) = traceparent {
        request.metadata_mut().insert("traceparent", value.parse()?);
    }
    let path = http::uri::PathAndQuery::from_static(method);
    client.unary(request, path, ProstCodec::<M, ()>::default()).await.with_context(|| method.to_owned())?;
    Ok(())
}
