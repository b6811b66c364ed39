//! The controllers of ReplicaSets and Jobs, asked of the API where that is allowed.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::object::{Job, ReplicaSet};
use super::workload::{Above, Controller, Kind};

/// Most owners kept: the pods of a full node have some hundred; those of finished Jobs come on top.
const MAX_OWNERS: usize = 512;

/// How long to do without after a look-up failed. Pods are told by the rules meanwhile, not late.
const PAUSE: Duration = Duration::from_secs(60);

/// The longest that a look-up may keep its pod from being told.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Owners by uid: what is above them, which never changes.
#[derive(Debug, Default)]
pub(super) struct Owners {
    above: HashMap<String, Option<Controller>>,
    order: VecDeque<String>,
    paused_until: Option<Instant>,
    forgotten: u64,
}

impl Owners {
    /// What is above a pod's controller: as known, else asked, else by the rules.
    pub(super) async fn above(&mut self, client: &Client, namespace: &str, controller: &Controller) -> Above<'_> {
        if !self.above.contains_key(&controller.uid) {
            if self.paused_until.is_some_and(|until| Instant::now() < until) {
                return Above::ByName;
            }
            let answer = match controller.kind {
                Kind::ReplicaSet => controller_of::<ReplicaSet>(client, namespace, controller).await,
                Kind::Job => controller_of::<Job>(client, namespace, controller).await,
                _ => return Above::Asked(None),
            };
            match answer {
                Ok(Some(above)) => self.keep(&controller.uid, above),
                Ok(None) => {} // gone meanwhile
                Err(error) => {
                    tracing::debug!(%error, owner = controller.name, "owners are told by their names for a while");
                    self.paused_until = Some(Instant::now() + PAUSE);
                }
            }
        }
        self.above.get(&controller.uid).map_or(Above::ByName, |above| Above::Asked(above.as_ref()))
    }

    /// Owners forgotten since this was last asked.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn keep(&mut self, uid: &str, above: Option<Controller>) {
        if self.order.len() == MAX_OWNERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.above.remove(&oldest);
            self.forgotten += 1;
        }
        self.order.push_back(uid.to_owned());
        self.above.insert(uid.to_owned(), above);
    }
}

/// A look-up failed.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("getting the owner: {0}")]
    Get(#[from] kube::Error),
    #[error("getting the owner: no answer in time")]
    NoAnswer,
}

/// The controller of an object; the outer `None` if the object is not there any more, or another of the same name.
async fn controller_of<K>(
    client: &Client,
    namespace: &str,
    object: &Controller,
) -> Result<Option<Option<Controller>>, LookupError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let objects = kube::Api::<K>::namespaced(client.clone(), namespace);
    let answer = tokio::time::timeout(ANSWER_WITHIN, objects.get_opt(&object.name)).await;
    let found = answer.map_err(|_| LookupError::NoAnswer)??;
    let same = found.filter(|found| found.meta().uid.as_deref() == Some(&object.uid));
    Ok(same.map(|found| Controller::of(found.meta().owner_references.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_owners_are_forgotten() {
        let mut owners = Owners::default();
        (0..MAX_OWNERS + 3).for_each(|number| owners.keep(&number.to_string(), None));
        assert_eq!((owners.above.len(), owners.order.len()), (MAX_OWNERS, MAX_OWNERS));
        assert_eq!((owners.take_forgotten(), owners.take_forgotten()), (3, 0));
        assert_eq!([owners.above.contains_key("2"), owners.above.contains_key("3")], [false, true]);
    }
}
