//! Without losses: every recorded call is told once, exactly, with all its points. This also holds the model of the programs
//! against the recordings.

use spanlet::call::{Call, Status, StatusSource, Traceparent};
use spanlet::capture::offline::Kept;
use spanlet_http2::grpc_timeout;

use crate::account::Account;
use crate::made::{self, Kind, Made};
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

/// A hundred calls at a time of every kind, with frames cut at 32,768 bytes and wherever else.
#[test]
fn every_made_call_is_told_as_it_was() {
    for (seed, most) in [(1, usize::MAX), (2, 16_384), (3, 4_099), (4, 1_000), (5, 13)] {
        let (recorded, made) = made::connection(seed);
        assert!(recorded.transfers.iter().any(|transfer| !transfer.reads && transfer.len == made::GATHERED_BYTES));
        let account = Account::of(&records(&recorded.cut(most)));
        assert_eq!(account.finished.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
        for (stream, made) in &made {
            is_as_made(&account.finished[stream], made);
        }
        assert!(account.capture.gaps().values().all(|count| *count == 0), "{:?}", account.capture.gaps());
        assert_eq!(account.capture.kept(), Kept::default());
    }
}

fn is_as_made(call: &Call, made: &Made) {
    let told = || format!("{call:?}\nwas {made:?}");
    assert_eq!(call.method.as_deref(), Some(made.method.as_str()), "{}", told());
    let source = match made.kind {
        Kind::ResetByServer | Kind::Cancelled | Kind::Open | Kind::NotTaken => StatusSource::Inferred,
        _ => StatusSource::Wire,
    };
    assert_eq!(call.status, Some(Status { code: made.status, source }), "{}", told());
    assert_eq!(call.streaming, matches!(made.kind, Kind::Stream(_)), "{}", told());
    let phases = call.points.phases().iter().flatten().count();
    let expected = match made.kind {
        Kind::Unary(..) | Kind::Stream(_) | Kind::NoMessage | Kind::TrailersOnly => 4,
        Kind::ResetByServer | Kind::Open => 2, // the server began to answer
        Kind::Cancelled => phases.min(2),      // at the same time, perhaps
        Kind::NotTaken => 1,
    };
    assert_eq!(phases, expected, "{}", told());
    assert!(!call.lost_track, "{}", told());
}
