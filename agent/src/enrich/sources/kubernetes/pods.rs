//! The node's pods: listed, then watched; see the module above for how failures are met.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::time::SystemTime;

use super::Api;
use super::backoff::Backoff;
use super::connection::connect;
use super::facts;
use super::object::Pod;
use super::owners::Owners;
use super::trouble::{self, Trouble};
use super::workload::{Above, Controller};
use crate::enrich::{News, OwnedFact, Source};
use crate::observe::KubernetesResult;
use futures_util::{Stream, StreamExt as _};
use kube::Client;
use kube::runtime::watcher::{self, Event, watcher};

/// Most pods told at a time, as many as the store keeps. A node runs up to some 250.
const MAX_PODS: usize = 1024;

/// After each so many failures in a row a new client is made: the server's address, its authority or the agent's
/// certificate may be others by now. It begins with a list, as would be needed after an outage anyway.
const FAILURES_PER_CLIENT: u32 = 5;

/// What follows for the agent from any failure.
const WITHOUT: &str = "new pods are known from calls and spans alone";

/// A page of the list, or the list's first, did not come.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
struct NoAnswer;

/// Watches until nobody listens.
pub(super) async fn watch(api: &Api) {
    let mut pods = Pods::new(api);
    let backoff = Backoff::new(api.pace.first_pause, api.pace.longest_pause);
    let mut trouble = Trouble::new(api, backoff, "list and watch pods", WITHOUT);
    while !api.news.is_closed() {
        match connect(api).await {
            Ok(client) => pods.follow(client, &mut trouble).await,
            Err(error) => trouble.meet(KubernetesResult::Failed, &error).await,
        }
    }
}

/// What has been told of the node's pods.
struct Pods<'a> {
    api: &'a Api,
    /// By uid a hash of the facts that were told last: most updates change nothing that matters here.
    told: HashMap<String, u64>,
    hasher: RandomState,
    /// The pods of the list that is being read.
    listed: Option<HashSet<String>>,
    owners: Owners,
}

impl<'a> Pods<'a> {
    fn new(api: &'a Api) -> Self {
        Self { api, told: HashMap::new(), hasher: RandomState::new(), listed: None, owners: Owners::default() }
    }

    /// Lists and watches with this client, until another is needed or nobody listens.
    async fn follow(&mut self, client: Client, trouble: &mut Trouble<'_>) {
        let config = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.api.node_name))
            .page_size(self.api.pace.page_pods)
            .timeout(self.api.pace.watch_seconds);
        let mut events = pin!(watcher(kube::Api::<Pod>::all(client.clone()), config));
        self.listed = Some(HashSet::new());
        while !self.api.news.is_closed() {
            let Some(event) = self.next(&mut events).await else {
                return trouble.meet(KubernetesResult::Failed, &NoAnswer).await;
            };
            match event {
                Ok(event) => {
                    if matches!(event, Event::Apply(_) | Event::Delete(_)) {
                        trouble.is_over();
                    }
                    self.event(event, &client).await;
                }
                Err(error) => {
                    let (result, needs_client) = verdict(&error);
                    trouble.meet(result, &error).await;
                    if needs_client || trouble.failures().is_multiple_of(FAILURES_PER_CLIENT) {
                        return;
                    }
                }
            }
        }
    }

    /// The next event; `None` if a list is not answered in time. A watch ends by itself.
    async fn next<S>(&self, events: &mut S) -> Option<watcher::Result<Event<Pod>>>
    where
        S: Stream<Item = watcher::Result<Event<Pod>>> + Unpin,
    {
        match self.listed {
            Some(_) => tokio::time::timeout(self.api.pace.answer_within, events.next()).await.ok().flatten(),
            None => events.next().await,
        }
    }

    async fn event(&mut self, event: Event<Pod>, client: &Client) {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if self.tell(&pod, client).await
                    && let Some(uid) = facts::uid(&pod)
                {
                    self.listed.get_or_insert_default().insert(uid.to_owned());
                }
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<String> = self.told.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                for uid in gone {
                    self.tell_gone(uid).await;
                }
                self.api.metrics.kubernetes(KubernetesResult::Listed, 1);
                tracing::info!(pods = self.told.len(), "the node's pods are known from the Kubernetes API");
            }
            Event::Apply(pod) => {
                self.tell(&pod, client).await;
            }
            Event::Delete(pod) => {
                // Its last spans are still to come, so what it was in the end matters.
                if self.tell(&pod, client).await
                    && let Some(uid) = facts::uid(&pod)
                {
                    self.tell_gone(uid.to_owned()).await;
                }
            }
        }
    }

    /// Tells what is new of the pod; `false` if there is no room for it.
    async fn tell(&mut self, pod: &Pod, client: &Client) -> bool {
        let Some(uid) = facts::uid(pod) else { return false };
        if self.told.len() >= MAX_PODS && !self.told.contains_key(uid) {
            self.api.metrics.kubernetes(KubernetesResult::PodIgnored, 1);
            return false;
        }
        let controller = Controller::of(pod.metadata.owner_references.as_ref());
        let controller = match &controller {
            Some(controller) => Some((controller, above(&mut self.owners, self.api, pod, controller, client).await)),
            None => None,
        };
        let told = facts::of_pod(pod, uid, &self.api.config, controller);
        let metrics = &self.api.metrics;
        metrics.kubernetes(KubernetesResult::OwnerForgotten, self.owners.take_forgotten());
        let hash = self.hasher.hash_one(&told.facts);
        if self.told.insert(uid.to_owned(), hash) != Some(hash) {
            metrics.kubernetes(KubernetesResult::AttributeDropped, told.dropped);
            metrics.kubernetes(KubernetesResult::ValueCut, told.cut);
            metrics.kubernetes(KubernetesResult::Told, 1);
            self.send(told.facts).await;
        }
        true
    }

    async fn tell_gone(&mut self, uid: String) {
        self.told.remove(&uid);
        self.api.metrics.kubernetes(KubernetesResult::Gone, 1);
        self.send(vec![OwnedFact::Gone { pod_uid: uid, at_unix_nano: now_ns() }]).await;
    }

    async fn send(&self, facts: Vec<OwnedFact>) {
        let _ = self.api.news.send(News { source: Source::Api, facts }).await; // the agent stops: nobody listens
    }
}

/// What the pod's controller belongs to, asked for if that is allowed.
async fn above<'a>(
    owners: &'a mut Owners,
    api: &Api,
    pod: &Pod,
    controller: &Controller,
    client: &Client,
) -> Above<'a> {
    if !api.config.owner_lookups {
        return Above::ByName;
    }
    owners.above(client, pod.metadata.namespace.as_deref().unwrap_or_default(), controller).await
}

/// What a failure counts as, and whether only a new client can go on: with credentials that are read again, or from the
/// start where kube would ask for the same version for ever.
fn verdict(error: &watcher::Error) -> (KubernetesResult, bool) {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let code = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.code,
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => 0,
    };
    let result = trouble::of_code(code);
    let needs_client = match result {
        KubernetesResult::Unauthorized => true,
        KubernetesResult::Expired => matches!(error, WatchStartFailed(_)),
        _ => false,
    };
    (result, needs_client)
}

fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
