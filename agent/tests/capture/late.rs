//! The recorded connections joined late: at each boundary between two frames of either end.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use spanlet::call::{Call, Naming, StatusSource, Subject};
use spanlet_abi::event::{CLIENT, SERVER};

use crate::account::Account;
use crate::programs::{records, records_from};
use crate::recorded::{CONNECTIONS, Recorded};

/// Requests after which a late joiner knows all of the table, if tracing is on.
const EXACT_AFTER: usize = 40;

/// What a connection tells from a boundary on.
struct Join<'a> {
    end: u8,
    boundary: usize,
    recorded: &'a Recorded,
    /// What is told of the same calls from the connection's start on.
    truth: &'a BTreeMap<u32, Call>,
    account: Account,
}

/// Joins a connection at every boundary, in as many threads as there are ends.
fn at_every_boundary(name: &str, check: impl Fn(&Join<'_>) + Sync) -> usize {
    let recorded = &Recorded::load(name);
    let truth = &Account::of(&records(recorded)).finished;
    let check = &check;
    let of_end = move |end: u8| {
        let boundaries = recorded.boundaries(end);
        for boundary in &boundaries {
            let account = Account::of(&records_from(recorded, end, *boundary));
            check(&Join { end, boundary: *boundary, recorded, truth, account });
        }
        boundaries.len()
    };
    thread::scope(|scope| {
        let threads = [CLIENT, SERVER].map(|end| scope.spawn(move || of_end(end)));
        threads.map(|thread| thread.join().expect("see the panic above")).into_iter().sum()
    })
}

impl Join<'_> {
    /// The calls whose request came after the join, in order.
    fn calls(&self) -> Vec<(&Call, &Call)> {
        let told = self.account.finished.values();
        told.map(|call| (call, &self.truth[&call.stream])).collect()
    }

    fn place(&self) -> String {
        format!("joined at {} of end {}", self.boundary, self.end)
    }

    /// Every call whose request began behind the join is told, and no other.
    fn is_complete(&self) {
        let told: Vec<u32> = self.account.finished.keys().copied().collect();
        let after =
            |id: u32| self.recorded.streams.iter().filter(move |stream| stream.id >= id).map(|stream| stream.id);
        let Some(&first) = told.first() else { return };
        assert_eq!(told, after(first).collect::<Vec<_>>(), "{}", self.place());
        if self.end == CLIENT {
            let next = self.recorded.streams.iter().find(|stream| stream.headers_at >= self.boundary);
            assert_eq!(next.map(|stream| stream.id), Some(first), "{}", self.place());
        }
        assert_eq!(self.account.gap("call_end_unseen"), self.unanswered(), "{}", self.place());
    }

    /// Calls that the recording's end has cut off.
    fn unanswered(&self) -> u64 {
        self.account.finished.keys().filter(|id| !self.truth[id].is_end_known()).count() as u64
    }

    /// Nothing is told otherwise than by one who was there from the start.
    fn is_honest(&self) {
        for (call, real) in self.calls() {
            let told = || format!("{}: {call:?}\nwas {real:?}", self.place());
            assert_eq!(call.started_ns, real.started_ns, "{}", told());
            assert!(call.method.is_none() || call.method == real.method, "{}", told());
            assert_eq!(call.method.is_none(), call.naming == Naming::Unknown, "{}", told());
            assert!(call.traceparent.is_none() || call.traceparent == real.traceparent, "{}", told());
            assert!(call.timeout_ns.is_none() || call.timeout_ns == real.timeout_ns, "{}", told());
            assert!(call.subject == Subject::Unknown || call.subject == real.subject, "{}", told());
            let (points, known) = (call.points, real.points);
            assert_eq!(points.request_written_ns, known.request_written_ns, "{}", told());
            assert_eq!(points.response_started_ns, known.response_started_ns, "{}", told());
            assert_eq!(points.response_written_ns, known.response_written_ns, "{}", told());
            assert!(points.request_read_ns.is_none() || points.request_read_ns == known.request_read_ns, "{}", told());
            assert!(
                points.response_read_ns.is_none() || points.response_read_ns == known.response_read_ns,
                "{}",
                told()
            );
            let (status, known) = (call.status.expect("is over"), real.status.expect("is over"));
            match status.source {
                StatusSource::Wire => assert_eq!(status.code, known.code, "{}", told()),
                // Success or failure, and that it is told by the shape.
                StatusSource::Shape => assert_eq!(status.code == 0, known.code == 0, "{}", told()),
                StatusSource::Inferred => panic!("every recorded call was answered: {}", told()),
            }
        }
    }
}

/// What is known of a request.
fn request(call: &Call) -> impl PartialEq + std::fmt::Debug + use<> {
    (call.method.clone(), call.naming, call.traceparent, call.timeout_ns, call.subject.clone())
}

#[test]
fn with_tracing_every_join_is_exact_within_40_requests() {
    let mut joins = 0;
    let exact = AtomicUsize::new(0);
    for name in CONNECTIONS.iter().filter(|name| name.starts_with("k134-c17-")) {
        joins += at_every_boundary(name, |join| {
            join.is_complete();
            join.is_honest();
            for (call, real) in join.calls().into_iter().skip(EXACT_AFTER) {
                assert_eq!(request(call), request(real), "{}", join.place());
                exact.fetch_add(1, Relaxed);
            }
        });
    }
    assert!(joins > 800 && exact.into_inner() > 30_000, "{joins} joins");
}

#[test]
fn without_tracing_every_call_is_seen_timed_and_unnamed_at_worst() {
    for name in CONNECTIONS.iter().filter(|name| name.contains("notrace")) {
        at_every_boundary(name, |join| {
            join.is_complete();
            join.is_honest();
            for (call, real) in join.calls() {
                let Some(guess) = call.guess else {
                    assert!(call.method.is_some(), "{}: no evidence is offered for {call:?}", join.place());
                    continue;
                };
                assert_eq!(call.method, None, "{}: a guess is for unnamed calls", join.place());
                let method = real.method.as_deref().expect("was read on the wire");
                assert!(
                    guess.methods.is_empty() || guess.methods.contains(&method),
                    "{}: {call:?} was {method}",
                    join.place()
                );
            }
        });
    }
}

/// How much is known in the middle of a long connection without tracing.
#[test]
fn without_tracing_a_guess_narrows_down_what_a_name_would_tell() {
    let recorded = Recorded::load("k134-c22-notrace-1");
    let boundaries = recorded.boundaries(CLIENT);
    let account = Account::of(&records_from(&recorded, CLIENT, boundaries[boundaries.len() / 2]));
    let unnamed: Vec<&Call> = account.finished.values().filter(|call| call.method.is_none()).collect();
    let narrowed = unnamed.iter().filter(|call| call.guess.is_some_and(|guess| !guess.methods.is_empty())).count();
    let timed = unnamed.iter().filter(|call| call.points.phases().iter().all(Option::is_some)).count();
    println!(
        "{} calls, {} unnamed, {narrowed} with few methods, {timed} with all phases",
        account.finished.len(),
        unnamed.len()
    );
    assert!(unnamed.len() > 100 && timed * 100 > unnamed.len() * 95);
}
