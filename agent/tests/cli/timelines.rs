//! Timelines to print.

use serde_json::json;
use spanlet::api::PodTimeline;

const MS: u64 = 1_000_000;

/// 2026-11-22T03:28:27.7Z.
pub(crate) const BEGIN_NS: u64 = 1_795_318_107_700_000_000;

/// A pod that waited for another one's image, with all kinds of entries.
pub(crate) fn slow_pull() -> PodTimeline {
    let entry =
        |name: &str, kind: &str, source: &str, depth: u32, from_ms: u64, to_ms: u64, attributes: serde_json::Value| {
            json!({
                "name": name, "kind": kind, "source": source, "depth": depth,
                "start_unix_nano": BEGIN_NS + from_ms * MS, "end_unix_nano": BEGIN_NS + to_ms * MS,
                "attributes": attributes,
            })
        };
    let phases = |wait: u64, handling: u64| {
        json!({
            "request_wait_ns": wait, "handling_ns": handling, "response_send_ns": 0, "response_wait_ns": 90_000,
            "client_overhead_ns": 510_000,
        })
    };
    let gap = |after: &str, before: &str| json!({ "after": after, "before": before });
    let runtime = |verb: &str| format!("runtime.v1.RuntimeService/{verb}");
    serde_json::from_value(json!({
        "namespace": "default", "name": "web-7d9c", "uid": "e85e4dbe-cd45-3b8b-6d83-db1c63ff927d",
        "state": "started", "started_at": "2026-11-22T03:28:27.700000000Z",
        "duration_seconds": 12.5, "accounted_ratio": 0.9839,
        "slowest": { "name": "wait for image pull of default/big", "seconds": 8.0 },
        "entries": [
            entry("syncPod", "sync", "otlp", 0, 0, 12_600, json!({ "update_type": "create" })),
            entry("gap between start of syncPod and csi.v1.Node/NodePublishVolume", "gap", "otlp", 1, 0, 100,
                gap("start of syncPod", "csi.v1.Node/NodePublishVolume")),
            entry("csi.v1.Node/NodePublishVolume", "csi", "wire", 0, 100, 400, json!({})),
            entry(&runtime("RunPodSandbox"), "cri", "wire", 1, 400, 1_400, phases(132_000, 999_000_000)),
            entry("cni bridge ADD", "exec", "exec", 2, 700, 1_000, json!({ "pid": 77 })),
            entry("metadata.sandbox.Create", "cri", "otlp", 2, 410, 411, json!({})),
            entry("runtime.v1.ImageService/ImageStatus", "cri", "wire", 1, 1_400, 1_401, phases(0, 700_000)),
            entry("wait for image pull of default/big", "wait", "wire", 1, 1_401, 9_400,
                json!({ "pod": "default/big", "image": "docker.io/library/big:1" })),
            entry("gap between ImageStatus and PullImage", "gap", "wire", 1, 9_400, 9_410,
                gap("runtime.v1.ImageService/ImageStatus", "runtime.v1.ImageService/PullImage")),
            entry("runtime.v1.ImageService/PullImage", "cri", "wire", 1, 9_410, 12_000,
                json!({ "image": "docker.io/library/web:1" })),
            entry("gap between PullImage and CreateContainer", "gap", "wire", 1, 12_000, 12_100,
                gap("runtime.v1.ImageService/PullImage", &runtime("CreateContainer"))),
            entry(&runtime("CreateContainer"), "cri", "wire", 1, 12_100, 12_110,
                json!({ "status": 2, "error": true, "container_name": "web" })),
            entry(&runtime("CreateContainer"), "cri", "wire", 1, 12_110, 12_200, json!({ "container_name": "web" })),
            entry(&runtime("StartContainer"), "cri", "wire", 1, 12_200, 12_500, json!({ "container_name": "web" })),
            entry(&runtime("StopContainer"), "cri", "wire", 0, 42_500, 43_500, json!({})),
        ],
    }))
    .expect("the shape of the debug API")
}
