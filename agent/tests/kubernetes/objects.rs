//! Objects of the API as a cluster has them.

use serde_json::{Value, json};

/// The node whose pods are watched.
pub(crate) const NODE: &str = "node-1";

/// A pod of this node with its usual weight: spec, managed fields and long annotations, none of which is used.
pub(crate) fn pod(name: &str) -> Value {
    pod_on(NODE, name)
}

pub(crate) fn pod_on(node: &str, name: &str) -> Value {
    let filler = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}".repeat(20);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": uid(name), "creationTimestamp": "2026-11-23T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "shop", "app.kubernetes.io/part-of": "store", "other": "x"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": filler},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        },
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "registry.example/app:1"}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    })
}

/// The status of a pod whose container runs.
pub(crate) fn running(name: &str) -> Value {
    let id = format!("containerd://{}", container(name));
    let container = json!({
        "name": "app", "containerID": id, "ready": true, "restartCount": 0,
        "image": "registry.example/app:1", "imageID": "", "state": {"running": {"startedAt": "2026-11-23T00:00:01Z"}},
    });
    json!({"phase": "Running", "qosClass": "BestEffort", "containerStatuses": [container]})
}

/// The uid of the pod of this name.
pub(crate) fn uid(name: &str) -> String {
    format!("uid-of-{name}")
}

/// The id of the pod's container.
pub(crate) fn container(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0>64}")
}

/// The pod, run by a controller.
pub(crate) fn owned(mut pod: Value, api_version: &str, kind: &str, name: &str) -> Value {
    pod["metadata"]["ownerReferences"] = json!([owner(api_version, kind, name)]);
    pod
}

pub(crate) fn owner(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid(name), "controller": true})
}
