//! The one definition of every key: its place, its comment, how it is read and written.

use serde_yaml::Value;

use super::Config;
use super::codec::{
    Access, Address, Asking, Bytes, Codec, Count, File, Flag, Keys, Mode, Optional, Pairs, Ratio, Shim, Sockets, Text,
    Time, UnixSocket,
};

/// A top-level section of the file.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) comment: &'static str,
    pub(super) keys: &'static [Key],
}

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) comment: &'static str,
    pub(super) read: fn(&Value, &mut Config) -> Result<(), String>,
    pub(super) write: fn(&Config) -> String,
}

macro_rules! sections {
    ($($section:ident: $about:literal { $($key:ident as $codec:ty: $comment:literal,)+ })+) => {
        pub(super) const SECTIONS: &[Section] = &[$(
            Section {
                name: stringify!($section),
                comment: $about,
                keys: &[$(
                    Key {
                        name: stringify!($key),
                        comment: $comment,
                        read: |value, config| {
                            config.$section.$key = <$codec>::read(value)?;
                            Ok(())
                        },
                        write: |config| <$codec>::write(&config.$section.$key),
                    },
                )+],
            },
        )+];
    };
}

sections! {
    receive: "Where spans come in. null switches a listener off." {
        grpc_listen as Optional<Address>: "OTLP over gRPC.",
        http_listen as Optional<Address>: "OTLP over HTTP (POST /v1/traces, protobuf).",
        unix_listen as Optional<File>: "OTLP over gRPC on a unix socket, such as /run/spanlet/otlp.sock; kubelet takes unix:///run/spanlet/otlp.sock.",
        max_request_bytes as Bytes: "Largest request, after decompression; the OTLP specification recommends 64MiB.",
    }
    capture: "What the kernel side watches." {
        mode as Mode: "auto takes the best that the kernel offers; fentry, kprobe and tracepoint force one; off loads nothing.",
        sockets as Sockets: "Unix sockets to watch. Kinds: cri, csi, dra, device, registration, pod-resources. A path that ends in * is a prefix. A list given here replaces the built-in one.",
        max_cpu_ratio as Optional<Ratio>: "Part of one core that the kernel programs may take on average over 10s. If they take more they are detached, that is said, and they are tried again after a rest. Runs for sockets that are not watched leave at once and are not counted. null sets no limit.",
        ring_bytes as Bytes: "Size of the ring from the kernel; a power of two, at least 4KiB.",
        dump_events as Optional<File>: "For tests: a file to write every kernel event to, as it came.",
    }
    correlate: "How spans and calls are joined, and which spans are made of what no span tells." {
        hold as Time: "How long spans may wait for their pod to become known. Only without probes; with them nothing waits.",
        slow_call as Time: "A sampled CRI call that takes at least this long gets its phases as spans.",
        phase_spans as Flag: "Spans of the phases of slow calls: request wait, handling, response send, response wait.",
        plugin_spans as Flag: "Spans of calls to CSI, DRA and device plugins for a pod, of which kubelet makes none.",
        exec_spans as Flag: "Spans of the runtime's processes (runc, CNI plugins) below the call that started them.",
    }
    enrich: "What is added to spans." {
        node_name as Optional<Text>: "k8s.node.name on every resource that lacks it, and the node whose pods are watched. null: the variable NODE_NAME, else the host's name.",
        cluster_name as Optional<Text>: "k8s.cluster.name on every resource that lacks it.",
        resource_attributes as Pairs: "Added to every resource that lacks them. The variable OTEL_RESOURCE_ATTRIBUTES wins; service.* is never added.",
        shim_service as Shim: "containerd's shims have a service name for each pod: keep it, or collapse them into containerd-shim with the old name as service.instance.id.",
        runtime as Asking: "auto asks the container runtime, read-only, for the pods that are older than the agent and for container names that nothing else told; off never asks.",
        runtime_endpoint as Optional<UnixSocket>: "The runtime to ask, such as unix:///run/containerd/containerd.sock. null takes the first cri socket of capture.sockets that answers.",
        pod_resources as Asking: "auto asks kubelet, over the pod-resources socket of capture.sockets, which pod a device or claim is for after a plugin's call; off never asks.",
        kubernetes as Access: "How the Kubernetes API is reached: in_cluster by the pod's service account, kubeconfig by that file, auto in_cluster if that is there, or off. Needs pods list and watch, nodes get.",
        kubeconfig as Optional<File>: "The file for kubernetes: kubeconfig. null: the variable KUBECONFIG, else ~/.kube/config.",
        labels as Keys: "Labels of pods that their spans are told, as k8s.pod.label.KEY. A key that ends in * is a prefix.",
        annotations as Keys: "Annotations of pods that their spans are told, as k8s.pod.annotation.KEY. A key that ends in * is a prefix.",
        node_labels as Keys: "Labels of the node that every resource is told, as k8s.node.label.KEY. A key that ends in * is a prefix.",
        owner_lookups as Flag: "Ask the API which Deployment owns a ReplicaSet and which CronJob a Job, rather than tell by their names. Needs replicasets get and jobs get.",
    }
    export: "Where spans go. The variables OTEL_EXPORTER_OTLP_* win over this section." {
        endpoint as Optional<Text>: "OTLP over gRPC, such as http://collector.example:4317. null keeps spans on the node.",
        headers as Pairs: "Sent with every request.",
        gzip as Flag: "Compress requests.",
        timeout as Time: "Deadline of one request. One that passes it is tried again.",
        queue_bytes as Bytes: "Most bytes that wait for upstream. When they are reached, senders are asked to come again.",
        batch_spans as Count: "A request is sent when this many spans wait …",
        batch_delay as Time: "… or when the first of them has waited this long. 0s sends at once.",
        drain_timeout as Time: "How long to go on sending what is held when told to stop.",
    }
    record: "The timelines of pods." {
        max_bytes as Bytes: "Most memory for them.",
    }
    memory: "The whole agent." {
        max_bytes as Bytes: "Most memory; what would pass it is refused with UNAVAILABLE, so that its sender keeps it. Set the container's limit a little higher.",
    }
    admin: "/livez, /readyz, /metrics, /api/v1. null switches a listener off." {
        listen as Optional<Address>: "All of it.",
        metrics_listen as Optional<Address>: "/metrics alone, for a Prometheus that scrapes the node's address.",
    }
    log: "The agent's own log, on standard error." {
        level as Text: "error, warn, info, debug or trace; also by module: warn,spanlet::export=debug.",
        json as Flag: "One JSON object a line.",
    }
}
