//! The node: its uid and the chosen labels, for every resource. They change so rarely that reading them once is enough.

use super::Api;
use super::attributes::Attributes;
use super::backoff::Backoff;
use super::connection::{ConnectError, connect};
use super::object::Node;
use super::trouble::{self, Trouble};
use crate::config;
use crate::enrich::{News, OwnedFact, Source};
use crate::observe::KubernetesResult;

/// The node could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("getting the node: {0}")]
    Get(#[from] kube::Error),
    #[error("getting the node: no answer in time")]
    NoAnswer,
}

impl ReadError {
    fn result(&self) -> KubernetesResult {
        match self {
            Self::Get(error) => trouble::of_request(error),
            Self::Connect(_) | Self::NoAnswer => KubernetesResult::Failed,
        }
    }
}

/// Reads the node and tells it; tries until it succeeds or nobody listens.
pub(super) async fn read(api: &Api) {
    let backoff = Backoff::new(api.pace.first_pause, api.pace.longest_pause_of_node);
    let mut trouble = Trouble::new(api, backoff, "get its node", "the node's uid and labels are not known");
    while !api.news.is_closed() {
        match get(api).await {
            Ok(node) => {
                api.metrics.kubernetes(KubernetesResult::Node, 1);
                let attributes = attributes(&node, &api.config);
                api.metrics.kubernetes(KubernetesResult::AttributeDropped, attributes.dropped);
                api.metrics.kubernetes(KubernetesResult::ValueCut, attributes.cut);
                let facts = vec![OwnedFact::Node { attributes: attributes.into_pairs() }];
                let _ = api.news.send(News { source: Source::Api, facts }).await; // the agent stops: nobody listens
                return;
            }
            Err(error) => trouble.meet(error.result(), &error).await,
        }
    }
}

async fn get(api: &Api) -> Result<Node, ReadError> {
    let nodes = kube::Api::<Node>::all(connect(api).await?);
    let answer = tokio::time::timeout(api.pace.answer_within, nodes.get(&api.node_name)).await;
    Ok(answer.map_err(|_| ReadError::NoAnswer)??)
}

fn attributes(node: &Node, config: &config::Enrich) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.add("k8s.node.uid", node.metadata.uid.as_deref().unwrap_or_default());
    attributes.add_chosen("k8s.node.label.", &config.node_labels, node.metadata.labels.as_ref());
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_and_chosen_labels() {
        let text = r#"{"metadata": {"name": "n", "uid": "u", "labels": {"zone": "a", "other": "b"}}}"#;
        let config = config::Enrich { node_labels: vec!["zone".to_owned()], ..config::Enrich::default() };
        let pairs = attributes(&serde_json::from_str(text).unwrap(), &config).into_pairs();
        let expected = [("k8s.node.uid", "u"), ("k8s.node.label.zone", "a")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
