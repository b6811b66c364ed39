//! Without losses: every recorded call is told once, exactly, with all its points. This also holds the model of the programs
//! against the recordings.

use spanlet::call::{StatusSource, Traceparent};
use spanlet::capture::offline::Kept;
use spanlet_http2::grpc_timeout;

use crate::account::Account;
use crate::programs::records;
use crate::recorded::{CONNECTIONS, Recorded};

#[test]
fn every_recorded_call_is_told_as_it_was() {
    for name in CONNECTIONS {
        for most in [usize::MAX, 41, 7, 1] {
            let recorded = Recorded::load(name).cut(most);
            let account = Account::of(&records(&recorded));
            assert_eq!(account.finished.len(), recorded.streams.len(), "{name}");
            for stream in &recorded.streams {
                let call = &account.finished[&stream.id];
                assert_eq!(call.method.as_deref(), Some(stream.method.as_str()), "{name}: {call:?}");
                assert_eq!(
                    call.traceparent,
                    stream.traceparent.as_deref().and_then(|t| Traceparent::parse(t.as_bytes()))
                );
                assert_eq!(call.timeout_ns, stream.timeout.as_deref().and_then(|t| grpc_timeout::parse(t.as_bytes())));
                if let Some(code) = stream.status {
                    let status = call.status.expect("is over");
                    assert_eq!((status.code, status.source), (code, StatusSource::Wire), "{name}: {call:?}");
                    let points = &call.points;
                    assert!(points.phases().iter().all(Option::is_some), "{name}: {call:?}");
                }
                assert!(!call.lost_track, "{name}: {call:?}");
            }
            assert!(account.capture.gaps().values().all(|count| *count == 0), "{name}: {:?}", account.capture.gaps());
            assert_eq!(account.capture.kept(), Kept::default(), "{name}");
        }
    }
}
