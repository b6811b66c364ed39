//! The node's image pulls, and which of them another pod's pull had to wait for.
//!
//! With `serializeImagePulls` (kubelet's default) one goroutine pulls one image after the other. A pod whose turn has not
//! come shows as a pause before its PullImage; the record names the pulls that ran in that pause.

use std::sync::Arc;

use crate::api::EntrySource;
use crate::pod::Pod;

use super::cover::Interval;
use super::evidence::CallSeen;
use super::pod_calls::{PodCall, PodCalls};
use super::step::Step;

/// Clocks of spans and of the wire differ by less; pulls that overlap by no more are still one after the other.
const OVERLAP_TOLERANCE_NS: u64 = 1_000_000;

/// One PullImage call.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    /// `None`: no source told.
    pub(super) pod: Option<Arc<Pod>>,
    pub(super) image: Option<Box<str>>,
    /// The connection it was asked on; `None` if known from spans alone, hence kubelet's.
    pub(super) connection: Option<u64>,
    pub(super) interval: Interval,
    pub(super) is_running: bool,
    pub(super) source: EntrySource,
}

/// All pulls in the record, in order of their start.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pulls: Vec<Pull>,
    /// Two pulls of one client ran at the same time: they do not wait for each other.
    parallel: bool,
}

impl Pull {
    /// `None` if `call` is no PullImage.
    pub(super) fn of(call: &PodCall<'_>, pod: Option<&Arc<Pod>>, now_ns: u64) -> Option<Self> {
        (call.step() == Step::PullImage).then(|| Self {
            pod: pod.map(Arc::clone),
            image: call.image().map(Into::into),
            connection: call.wire.map(|wire| wire.connection),
            interval: Interval::new(call.started_ns(), call.ended_ns().unwrap_or(now_ns)),
            is_running: call.is_running(),
            source: call.source(),
        })
    }

    /// `namespace/name` of the pod that it was for.
    pub(super) fn pod_name(&self) -> Option<String> {
        self.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name))
    }

    fn shares_queue(&self, connection: Option<u64>) -> bool {
        self.connection.zip(connection).is_none_or(|(mine, other)| mine == other)
    }
}

impl Pulls {
    pub(super) fn new(mut pulls: Vec<Pull>) -> Self {
        pulls.sort_by_key(|pull| (pull.interval, pull.connection));
        let parallel = pulls.iter().enumerate().any(|(index, pull)| {
            let overlapping = pulls[index + 1..]
                .iter()
                .take_while(|later| later.interval.from_ns + OVERLAP_TOLERANCE_NS < pull.interval.to_ns);
            overlapping.into_iter().any(|later| later.shares_queue(pull.connection))
        });
        Self { pulls, parallel }
    }

    /// Pulls for other pods than `pod` that ran during `pause`, which ended with a pull on `connection`; each with the part
    /// of the pause that it explains. None if pulls run side by side here: then no pull waits for another.
    pub(super) fn before(&self, pod: &Pod, connection: Option<u64>, pause: Interval) -> Vec<(Interval, &Pull)> {
        if self.parallel {
            return Vec::new();
        }
        let of_others = self.pulls.iter().filter(|pull| pull.pod.as_deref().is_none_or(|other| !is_same(other, pod)));
        let mut reached_ns = pause.from_ns;
        let mut waits = Vec::new();
        for pull in of_others.filter(|pull| pull.shares_queue(connection)) {
            if let Some(part) = pull.interval.within(Interval::new(reached_ns, pause.to_ns)) {
                reached_ns = part.to_ns;
                waits.push((part, pull));
            }
        }
        waits
    }
}

/// The pulls among a pod's calls.
pub(super) fn of_pod<'a>(
    calls: &'a PodCalls<'_>,
    pod: &'a Arc<Pod>,
    now_ns: u64,
) -> impl Iterator<Item = Pull> + use<'a> {
    calls.calls.iter().filter_map(move |call| Pull::of(call, Some(pod), now_ns))
}

/// A pull that no source gives to a pod.
pub(super) fn unowned(call: &CallSeen, now_ns: u64) -> Option<Pull> {
    Pull::of(&PodCall { wire: Some(call), client: None, server: None }, None, now_ns)
}

fn is_same(one: &Pod, other: &Pod) -> bool {
    one.namespace == other.namespace
        && one.name == other.name
        && (one.uid == other.uid || one.uid.is_empty() || other.uid.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Arc<Pod> {
        Arc::new(Pod {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            attributes: Vec::new(),
        })
    }

    fn pull(name: &str, connection: Option<u64>, from_ns: u64, to_ns: u64) -> Pull {
        Pull {
            pod: Some(pod(name)),
            image: None,
            connection,
            interval: Interval::new(from_ns, to_ns),
            is_running: false,
            source: EntrySource::Wire,
        }
    }

    const S: u64 = 1_000_000_000;

    fn waits(pulls: Vec<Pull>, pause: (u64, u64)) -> Vec<(String, u64, u64)> {
        Pulls::new(pulls)
            .before(&pod("me"), Some(1), Interval::new(pause.0, pause.1))
            .into_iter()
            .map(|(part, pull)| (pull.pod.as_ref().unwrap().name.clone(), part.from_ns / S, part.to_ns / S))
            .collect()
    }

    #[test]
    fn a_pause_is_explained_by_the_pulls_that_ran_in_it() {
        let pulls = vec![
            pull("first", Some(1), 0, 4 * S),
            pull("second", Some(1), 5 * S, 7 * S),
            pull("me", Some(1), 8 * S, 9 * S),
            pull("later", Some(1), 9 * S, 12 * S),
        ];
        assert_eq!(waits(pulls, (2 * S, 8 * S)), [("first".to_owned(), 2, 4), ("second".to_owned(), 5, 7)]);
    }

    #[test]
    fn pulls_side_by_side_explain_nothing() {
        let pulls = vec![pull("first", Some(1), 0, 4 * S), pull("second", Some(1), 3 * S, 7 * S)];
        assert_eq!(waits(pulls, (2 * S, 8 * S)), []);
    }

    #[test]
    fn another_client_has_a_queue_of_its_own() {
        let pulls = vec![pull("kubelet", Some(1), 0, 4 * S), pull("crictl", Some(2), 3 * S, 7 * S)];
        assert_eq!(waits(pulls, (2 * S, 8 * S)), [("kubelet".to_owned(), 2, 4)]);
    }

    #[test]
    fn spans_alone_are_of_kubelets_queue() {
        assert_eq!(waits(vec![pull("first", None, 0, 4 * S)], (2 * S, 8 * S)), [("first".to_owned(), 2, 4)]);
    }
}
