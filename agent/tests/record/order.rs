//! The same evidence in any order gives the same timeline.

use proptest::prelude::*;
use spanlet::api::PodTimeline;
use spanlet::batch::Batch;
use spanlet::call::CallEvent;
use spanlet::config;
use spanlet::record::Recorder;
use spanlet_otlp::{SpanKind, TraceRequest, split};

use crate::evidence::{Evidence, at, call, container, exec, pod, recorder, span, sync};
use crate::recording::{Owners, batches, calls};

/// Two pods, one waiting for the other's image, seen on the wire and as spans, with a restart, probes and an end.
fn made_up() -> Vec<Evidence> {
    let (web, big) = (&pod("web"), &pod("big"));
    let runtime = |verb: &str| format!("runtime.v1.RuntimeService/{verb}");
    let sandbox = call(web, "RunPodSandbox", 10, 100).span(1, 1);
    let pull = call(web, "PullImage", 5_000, 9_000).image("web:1").span(1, 3);
    let mut evidence = vec![
        sync(web, "syncPod", 1, 0, 9_100, false),
        sandbox.clone().started(),
        sandbox.finished(),
        span(web, (&runtime("RunPodSandbox"), SpanKind::Client), 1, (1, 0xff), (9, 101)),
        span(web, (&runtime("RunPodSandbox"), SpanKind::Server), 1, (2, 1), (11, 99)),
        span(web, ("container.NewTask", SpanKind::Internal), 1, (7, 2), (50, 98)),
        exec(web, &["runc", "create", "s"], (12, 11), 60, Some(90)),
        exec(web, &["runc", "create", "s"], (12, 11), 60, None),
        pull.clone().started(),
        pull.finished(),
        call(web, "ImageStatus", 100, 110).span(1, 9).unowned().finished(),
        call(web, "ContainerStatus", 9_500, 9_501).finished(),
        call(web, "ExecSync", 15_000, 15_010).finished(),
        call(web, "ExecSync", 45_000, 45_010).finished(),
        call(web, "StopPodSandbox", 60_000, 60_100).finished(),
        sync(web, "syncTerminatingPod", 4, 59_000, 60_200, false),
        call(big, "RunPodSandbox", 0, 20).finished(),
        call(big, "PullImage", 20, 4_990).finished(),
        call(big, "PullImage", 30_000, 0).started(),
    ];
    evidence.extend(container(web, "c1", "init", 9_010));
    evidence.extend(container(web, "c2", "app", 30_000));
    evidence.extend(container(web, "c3", "app", 50_000));
    evidence
}

fn asked(recorder: &Recorder) -> (Vec<spanlet::api::PodSummary>, Vec<Option<PodTimeline>>) {
    let now_ns = at(70_000);
    let timelines = ["web", "big", "spike1-spike-node"].map(|name| recorder.pod("default", name, now_ns)).to_vec();
    (recorder.pods(now_ns), timelines)
}

/// The recorded run as pieces: each call twice, each span in a request of its own.
fn recorded() -> Vec<Piece> {
    let mut owners = Owners::default();
    let mut pieces = Vec::new();
    for call in calls("k134-c17", &mut owners) {
        pieces.push(Piece::Call(CallEvent::Started(Box::new(spanlet::call::Call {
            status: None,
            ended_ns: call.started_ns,
            response_id: None,
            ..call.clone()
        }))));
        pieces.push(Piece::Call(CallEvent::Finished(Box::new(call))));
    }
    for batch in batches("cri/cri-conn-k134-c17-otlp.binpb", &mut owners) {
        let whole = batch.request.encode(&batch.additions);
        for (bytes, owner) in split(whole, 1, usize::MAX).unwrap().zip(batch.owners) {
            pieces.push(Piece::Span(bytes, owner));
        }
    }
    pieces
}

#[derive(Debug, Clone)]
enum Piece {
    Call(CallEvent),
    Span(bytes::Bytes, Option<spanlet::pod::Owner>),
}

fn told(pieces: &[Piece]) -> Recorder {
    let mut recorder = Recorder::new(&config::Record::default());
    for piece in pieces {
        match piece {
            Piece::Call(event) => recorder.call(event),
            Piece::Span(bytes, owner) => {
                let request = TraceRequest::parse(bytes.clone()).unwrap();
                let mut batch = Batch::new(spanlet::batch::Source::Grpc, request);
                batch.owners = vec![owner.clone()];
                recorder.batch(&batch);
            }
        }
    }
    recorder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn of_made_up_evidence(shuffled in Just(made_up()).prop_shuffle()) {
        let expected = asked(&recorder(&made_up()));
        prop_assert_eq!(expected.0.len(), 2);
        prop_assert_eq!(asked(&recorder(&shuffled)), expected);
    }

    /// Whatever has come so far, a timeline is well-formed.
    #[test]
    fn of_part_of_the_evidence(shuffled in Just(made_up()).prop_shuffle(), count in 0_usize..25) {
        let recorder = recorder(&shuffled[..count.min(shuffled.len())]);
        for summary in recorder.pods(at(70_000)) {
            prop_assert!((0.0..=1.0).contains(&summary.accounted_ratio));
            let timeline = recorder.pod(&summary.namespace, &summary.name, at(70_000)).unwrap();
            prop_assert_eq!(&timeline.summary, &summary);
            for pair in timeline.entries.windows(2) {
                prop_assert!(pair[0].start_unix_nano <= pair[1].start_unix_nano);
            }
            for entry in &timeline.entries {
                prop_assert!(entry.start_unix_nano <= entry.end_unix_nano);
            }
        }
    }
}

proptest! {
    // A case is some 900 pieces.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn of_recorded_evidence(shuffled in Just(recorded()).prop_shuffle()) {
        prop_assert_eq!(asked(&told(&shuffled)), asked(&told(&recorded())));
    }
}
