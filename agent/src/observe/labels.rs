//! The closed sets of label values. A reason that is not listed here cannot be counted.

/// A closed set of values for one label.
pub trait Label: Copy + Eq + 'static {
    /// The label's name in the exposition.
    const NAME: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    fn label(self) -> &'static str;
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident as $key:literal { $($(#[$doc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Label for $name {
            const NAME: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn label(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// Where spans came in.
    Receiver as "source" {
        Grpc = "grpc",
        Http = "http",
    }
}

labels! {
    /// Why a request was not taken. Its spans are still the sender's.
    Refusal as "reason" {
        /// The memory budget or the export queue has no room; the sender is told when to come again.
        NoMemory = "no_memory",
        /// The queue to the pipeline is full; the sender is told when to come again.
        QueueFull = "queue_full",
        /// The agent is going down; the sender is told to come again.
        Stopping = "stopping",
        /// Larger than `receive.max_request_bytes` after decompression.
        TooLarge = "too_large",
        /// Not an OTLP trace request, or not readable as what its headers say.
        Malformed = "malformed",
        /// A content type, encoding, method or path that is not served.
        Unsupported = "unsupported",
        /// The body did not arrive in time, or its sender went away.
        Incomplete = "incomplete",
    }
}

labels! {
    /// Why acknowledged spans were lost.
    DropReason as "reason" {
        /// Upstream took the request and reported these spans as rejected.
        Rejected = "rejected",
        /// Upstream refused the request with a status that must not be retried.
        Refused = "refused",
        /// A single span is larger than any request may be.
        TooLarge = "too_large",
        /// Still queued when the drain deadline passed.
        Shutdown = "shutdown",
        /// Made by the agent itself when the memory budget had no room.
        NoRoom = "no_room",
    }
}

labels! {
    /// Why spans were left out on purpose.
    FilterRule as "rule" {
        /// No `export.endpoint`: spans stay on the node.
        Local = "local",
    }
}

labels! {
    /// What a span that the agent made itself stands for.
    SpanKind as "kind" {
        Phase = "phase",
        Plugin = "plugin",
        Exec = "exec",
        Unsampled = "unsampled",
    }
}

labels! {
    /// What came of looking for the call of a client or server span.
    JoinResult as "result" {
        JoinedClient = "joined_client",
        JoinedServer = "joined_server",
        /// A span that was joined before came again, as retries make them.
        Duplicate = "duplicate",
        /// Its key is a call's, but that call has another span already or another method.
        Refused = "refused",
        /// Its call is not known: probes not attached, events lost, or a socket that is not watched.
        Missed = "missed",
        /// A server span without a parent: its client sent no context.
        Unlinked = "unlinked",
    }
}

labels! {
    /// Why a call is not kept for its spans.
    ForgetReason as "reason" {
        /// The table of calls is full; the oldest went.
        TableFull = "table_full",
        /// Another call carries the same `traceparent` and keeps it.
        SameIds = "same_ids",
    }
}

labels! {
    /// What came of asking whose spans and calls are, and what the store of identity could not keep.
    IdentityResult as "result" {
        /// A span was given its pod.
        Owned = "owned",
        /// A span had passed before its trace was known to be a pod's.
        Early = "early",
        /// Two sources contradicted each other; the more trusted one was believed.
        Conflict = "conflict",
        /// A pod was forgotten because the store is full.
        PodEvicted = "pod_evicted",
        /// A sandbox, container, volume or claim was forgotten because its table or its pod is full.
        IdEvicted = "id_evicted",
        /// A trace was forgotten because the table is full.
        TraceEvicted = "trace_evicted",
        /// A plugin's call waited for its pod and was given up because too many did.
        PendingDropped = "pending_dropped",
        /// A source that can be asked was not, because too many questions waited.
        NotAsked = "not_asked",
        /// A link to a span of the API server was not kept because its table or its pod is full.
        LinkDropped = "link_dropped",
    }
}

labels! {
    /// What came of watching the Kubernetes API, and what its limits cost.
    KubernetesResult as "result" {
        /// All pods of the node were listed.
        Listed = "listed",
        /// A pod was told, new or changed.
        Told = "told",
        /// A pod was told gone: deleted, or no longer there when the pods were listed again.
        Gone = "gone",
        /// The node was told.
        Node = "node",
        /// A request failed, or its answer did not come in time; it is made again.
        Failed = "failed",
        /// The API server no longer had the version to go on from (410); the pods are listed again.
        Expired = "expired",
        /// The API server did not take the credentials (401); they are read again.
        Unauthorized = "unauthorized",
        /// The agent has no right to what it asked for (403); it asks again, in case that is given.
        Forbidden = "forbidden",
        /// A pod was not told because more than any node runs are known.
        PodIgnored = "pod_ignored",
        /// An attribute was left out because its pod or the node has too many.
        AttributeDropped = "attribute_dropped",
        /// A value was told in part because it is too long.
        ValueCut = "value_cut",
        /// An owner was forgotten because too many are known; it is asked for again.
        OwnerForgotten = "owner_forgotten",
    }
}

labels! {
    /// The four parts of a call.
    Phase as "phase" {
        RequestWait = "request_wait",
        Handling = "handling",
        ResponseSend = "response_send",
        ResponseWait = "response_wait",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn is_closed<L: Label>() {
        let labels: HashSet<&str> = L::ALL.iter().map(|one| one.label()).collect();
        assert_eq!(labels.len(), L::ALL.len(), "{} has a value twice", L::NAME);
        assert!(L::ALL.iter().enumerate().all(|(index, one)| one.index() == index));
        let snake = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(labels.into_iter().all(snake));
    }

    #[test]
    fn values_are_distinct_and_in_order() {
        is_closed::<Receiver>();
        is_closed::<Refusal>();
        is_closed::<DropReason>();
        is_closed::<FilterRule>();
        is_closed::<SpanKind>();
        is_closed::<JoinResult>();
        is_closed::<ForgetReason>();
        is_closed::<IdentityResult>();
        is_closed::<KubernetesResult>();
        is_closed::<Phase>();
    }
}
