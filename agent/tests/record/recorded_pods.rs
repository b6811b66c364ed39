//! Pods that a real kubelet started on a real containerd.

use spanlet::api::{EntryKind, EntrySource, PodState, PodTimeline};
use spanlet::call::CallEvent;
use spanlet::config;
use spanlet::record::Recorder;

use crate::recording::{Owners, batches, calls};

const NAMESPACE: &str = "default";
const POD: &str = "spike1-spike-node";

/// Long after each recording.
const LATER_NS: u64 = 1_900_000_000_000_000_000;

fn recorder() -> Recorder {
    Recorder::new(&config::Record::default())
}

fn wire_and_spans() -> PodTimeline {
    let mut recorder = recorder();
    let mut owners = Owners::default();
    for call in calls("k134-c17", &mut owners) {
        recorder.call(&CallEvent::Finished(Box::new(call)));
    }
    for batch in batches("cri/cri-conn-k134-c17-otlp.binpb", &mut owners) {
        recorder.batch(&batch);
    }
    recorder.pod(NAMESPACE, POD, LATER_NS).unwrap()
}

fn names(timeline: &PodTimeline, kind: EntryKind) -> Vec<&str> {
    let entries = timeline.entries.iter().filter(|entry| entry.kind == kind && entry.attributes.get("outlives").is_none());
    entries.map(|entry| entry.name.rsplit('/').next().unwrap()).collect()
}

#[test]
fn a_recorded_start_is_accounted_for() {
    let timeline = wire_and_spans();
    for e in &timeline.entries { println!("{:>9.3} {:>9.3} {} {:?} {:?} {} {:?}", (e.start_unix_nano as i128 - timeline.entries[0].start_unix_nano as i128) as f64/1e6, (e.end_unix_nano-e.start_unix_nano) as f64/1e6, e.depth, e.kind, e.source, e.name, e.attributes); }
    println!("{:?}", timeline.summary);
}
