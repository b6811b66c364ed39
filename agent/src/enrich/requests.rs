//! What the API server was asked for pods, as its own spans tell on a node where it runs: who made a pod and who bound it.
//!
//! The spans name pods by namespace and name, so a pod may be mistaken for an older one of the same name. A request therefore
//! belongs to the first pod of that name that starts soon after it, and to no other.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::pod::Pod;

/// A span, by trace id and span id.
pub(super) type SpanContext = ([u8; 16], [u8; 8]);

/// Requests by the pod's `namespace/name`; a bounded table, the oldest going first.
#[derive(Debug, Default)]
pub(super) struct Requests {
    by_name: HashMap<Box<str>, Asked>,
    order: VecDeque<Box<str>>,
    dropped: u64,
}

#[derive(Debug)]
struct Asked {
    /// Start of the last request, Unix nanoseconds.
    at_ns: u64,
    /// The pod that it turned out to be for.
    uid: Option<Box<str>>,
    spans: Vec<SpanContext>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    /// To run on a node.
    Bind,
}

/// Most pods with requests: those of the whole cluster that are made within some minutes.
const MAX_PODS: usize = 1024;

/// Most spans kept of one pod: the API server's and its caller's, for its making and its binding.
const MAX_SPANS_PER_POD: usize = 4;

/// How long after its last request a pod may start. It is made and bound within seconds of each other, and kubelet hears of
/// it at once.
const STARTS_WITHIN_NS: u64 = 60_000_000_000;

impl Requests {
    /// Notes the spans of a request that began at `at_ns`.
    pub(super) fn note(
        &mut self,
        verb: Verb,
        (namespace, name): (&str, &str),
        at_ns: u64,
        spans: impl Iterator<Item = SpanContext>,
    ) {
        let key = format!("{namespace}/{name}").into_boxed_str();
        let asked = match self.by_name.entry(key) {
            hashbrown::hash_map::Entry::Occupied(slot) => slot.into_mut(),
            hashbrown::hash_map::Entry::Vacant(slot) => {
                self.order.push_back(slot.key().clone());
                slot.insert(Asked { at_ns, uid: None, spans: Vec::new() })
            }
        };
        let is_another_pod = asked.uid.is_some() || verb == Verb::Create;
        if is_another_pod && at_ns > asked.at_ns {
            *asked = Asked { at_ns, uid: None, spans: Vec::new() };
        }
        asked.at_ns = asked.at_ns.max(at_ns);
        for span in spans {
            if asked.spans.contains(&span) {
                continue;
            }
            if asked.spans.len() == MAX_SPANS_PER_POD {
                self.dropped += 1;
            } else {
                asked.spans.push(span);
            }
        }
        self.evict();
    }

    /// The requests for the pod, of which something started at `started_ns`.
    pub(super) fn of_pod(&mut self, pod: &Pod, started_ns: u64) -> &[SpanContext] {
        if self.by_name.is_empty() {
            return &[];
        }
        let Some(asked) = self.by_name.get_mut(format!("{}/{}", pod.namespace, pod.name).as_str()) else { return &[] };
        match &asked.uid {
            Some(uid) if **uid == *pod.uid => &asked.spans,
            None if !pod.uid.is_empty()
                && (asked.at_ns..asked.at_ns.saturating_add(STARTS_WITHIN_NS)).contains(&started_ns) =>
            {
                asked.uid = Some(pod.uid.as_str().into());
                &asked.spans
            }
            _ => &[],
        }
    }

    /// Spans that were not kept.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn evict(&mut self) {
        if self.order.len() > MAX_PODS
            && let Some(oldest) = self.order.pop_front()
            && let Some(asked) = self.by_name.remove(&oldest)
        {
            self.dropped += asked.spans.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const WEB: (&str, &str) = ("default", "web");

    fn span(number: u8) -> SpanContext {
        ([number; 16], [number; 8])
    }

    fn pod(uid: &str) -> Pod {
        Pod { namespace: "default".to_owned(), name: "web".to_owned(), uid: uid.to_owned(), attributes: Vec::new() }
    }

    #[test]
    fn a_request_belongs_to_the_pod_that_starts_after_it() {
        let mut requests = Requests::default();
        requests.note(Verb::Create, WEB, SECOND_NS, [span(1), span(2)].into_iter());
        requests.note(Verb::Bind, WEB, 2 * SECOND_NS, [span(3), span(3)].into_iter());
        assert_eq!(requests.of_pod(&pod("old"), SECOND_NS), [], "it ran before");
        assert_eq!(requests.of_pod(&pod("a"), 3 * SECOND_NS), [span(1), span(2), span(3)]);
        assert_eq!(requests.of_pod(&pod("a"), 900 * SECOND_NS), [span(1), span(2), span(3)], "for as long as it lives");
        assert_eq!(requests.of_pod(&pod("b"), 4 * SECOND_NS), [], "another of the same name");
        requests.note(Verb::Bind, WEB, 5 * SECOND_NS, [span(4)].into_iter());
        assert_eq!(requests.of_pod(&pod("b"), 6 * SECOND_NS), [span(4)], "bound anew: another pod");
        assert_eq!(requests.of_pod(&pod("a"), 6 * SECOND_NS), []);
    }

    #[test]
    fn a_pod_that_starts_much_later_is_another() {
        let mut requests = Requests::default();
        requests.note(Verb::Bind, WEB, SECOND_NS, [span(1)].into_iter());
        assert_eq!(requests.of_pod(&pod("a"), 62 * SECOND_NS), []);
    }

    #[test]
    fn pods_and_spans_are_limited_and_counted() {
        let mut requests = Requests::default();
        requests.note(Verb::Create, WEB, SECOND_NS, (0..6).map(span));
        assert_eq!((requests.of_pod(&pod("a"), SECOND_NS).len(), requests.dropped()), (4, 2));
        for number in 0..MAX_PODS {
            requests.note(Verb::Create, ("default", &number.to_string()), SECOND_NS, [span(1)].into_iter());
        }
        assert_eq!((requests.by_name.len(), requests.order.len(), requests.dropped()), (MAX_PODS, MAX_PODS, 6));
        assert_eq!(requests.of_pod(&pod("a"), SECOND_NS), []);
    }
}
