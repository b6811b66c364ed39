//! The recorded connections with records lost at random. Whatever is lost: no call is invented, nothing that is told of one
//! contradicts the truth, what is not known is counted, and after a while nothing is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use fastrand::Rng;
use proptest::prelude::*;
use spanlet::call::{Call, StatusSource, Subject};
use spanlet::capture::offline::Kept;
use spanlet_abi::event::{CLIENT, Kind};

use crate::account::Account;
use crate::made;
use crate::programs::{Told, records};
use crate::recorded::{CONNECTIONS, Recorded};

/// Bytes of the longest write: as recorded, or so that header blocks and fields are cut.
const WRITES: [usize; 3] = [usize::MAX, 60, 9];

/// Made connections by seed, and bytes of the longest write.
const MADE: [(u64, usize); 2] = [(11, usize::MAX), (12, 1_000)];
const TRUTHS_COUNT: usize = CONNECTIONS.len() * WRITES.len() + MADE.len();

/// A connection's records, and the calls that they tell of if none is lost.
struct Truth {
    records: Vec<Told>,
    calls: BTreeMap<u32, Call>,
}

static TRUTHS: LazyLock<Vec<Truth>> = LazyLock::new(|| {
    let recorded = CONNECTIONS.iter().flat_map(|name| WRITES.map(|most| Recorded::load(name).cut(most)));
    let variants = recorded.chain(MADE.map(|(seed, most)| made::connection(seed).0.cut(most)));
    let truth = |recorded: Recorded| {
        let records = records(&recorded);
        let calls = Account::of(&records).finished;
        Truth { records, calls }
    };
    variants.map(truth).collect()
});

/// Which records are lost.
#[derive(Debug, Clone)]
struct Losses {
    seed: u64,
    /// Of a thousand, one by one.
    single: u32,
    /// Where a burst begins, of a thousand, and how long it is.
    bursts: Vec<(usize, usize)>,
}

impl Losses {
    /// The records that are left, and those that are not. The announcement is not among these: without it there is no connection.
    fn of<'a>(&self, records: &'a [Told]) -> (Vec<&'a Told>, Vec<&'a Told>) {
        let mut rng = Rng::with_seed(self.seed);
        let in_burst = |index: usize| {
            let begins = |begin: usize| begin * records.len() / 1_000;
            self.bursts.iter().any(|(begin, length)| (begins(*begin)..begins(*begin) + length).contains(&index))
        };
        let is_left = |index: usize, rng: &mut Rng| index == 0 || !(rng.u32(..1_000) < self.single || in_burst(index));
        let (left, lost): (Vec<_>, Vec<_>) =
            records.iter().enumerate().partition(|(index, _)| is_left(*index, &mut rng));
        let only = |records: Vec<(usize, &'a Told)>| records.into_iter().map(|(_, record)| record).collect();
        (only(left), only(lost))
    }
}

fn losses() -> impl Strategy<Value = Losses> {
    let bursts = prop::collection::vec((0_usize..1_000, 1_usize..120), 0..4);
    (any::<u64>(), prop_oneof![Just(0_u32), 1_u32..30, 30_u32..400], bursts).prop_map(|(seed, single, bursts)| Losses {
        seed,
        single,
        bursts,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { ..ProptestConfig::default() })]

    #[test]
    fn what_is_lost_is_not_told_otherwise(truth in 0..TRUTHS_COUNT, losses in losses()) {
        let truth = &TRUTHS[truth];
        let (left, lost) = losses.of(&truth.records);
        let mut account = Account::of(left.iter().copied());
        account.gone(!lost.is_empty()); // where its close is lost, too
        prop_assert_eq!(account.capture.kept(), Kept::default());
        check_honest(truth, &account);
        check_missing(truth, &account, &lost);
        if lost.is_empty() {
            prop_assert_eq!(account.gap("track_lost"), 0);
            prop_assert!(account.finished == truth.calls);
        }
    }

    /// kubelet's connections live for weeks.
    #[test]
    fn a_connection_that_stays_open_heals(truth in 0..TRUTHS_COUNT, losses in losses()) {
        let truth = &TRUTHS[truth];
        let (left, lost) = losses.of(&truth.records);
        let mut account = Account::of(left.iter().copied().filter(|record| record.kind != Kind::Closed));
        account.doubt(); // as the worker does when it is told that records were lost
        account.wait();
        // Streams whose deadline the lost table hides may live on.
        let may_live = |(stream, call): (&u32, &Call)| call.streaming && !account.finished.contains_key(stream);
        let living = truth.calls.iter().filter(|call| may_live(*call)).count();
        prop_assert!(account.capture.kept().streams <= living, "{:?}, {}", account.capture.kept(), living);
        account.gone(true);
        prop_assert_eq!(account.capture.kept(), Kept::default());
        check_honest(truth, &account);
        check_missing(truth, &account, &lost);
    }
}

/// Nothing that is told contradicts what is told when nothing is lost.
fn check_honest(truth: &Truth, account: &Account) {
    for call in account.finished.values().chain(&account.started) {
        let real = truth.calls.get(&call.stream).unwrap_or_else(|| panic!("nobody made {call:?}"));
        let told = format!("{call:?}\nwas {real:?}");
        assert_eq!(call.started_ns, real.started_ns, "{told}");
        assert!(call.method.is_none() || call.method == real.method, "{told}");
        assert!(call.traceparent.is_none() || call.traceparent == real.traceparent, "{told}");
        assert!(call.timeout_ns.is_none() || call.timeout_ns == real.timeout_ns, "{told}");
        assert!(call.subject == Subject::Unknown || call.subject == real.subject, "{told}");
        assert!(call.response_id.is_none() || call.response_id == real.response_id, "{told}");
        let guessed = call.guess.map_or(&[][..], |guess| guess.methods);
        assert!(guessed.is_empty() || real.method.as_deref().is_some_and(|real| guessed.contains(&real)), "{told}");
        for (told_point, point) in points(call).into_iter().zip(points(real)) {
            assert!(told_point.is_none() || told_point == point, "{told}");
        }
        check_end(call, real, &told);
    }
    assert_eq!(account.gap("stream_refused"), 0);
}

fn check_end(call: &Call, real: &Call, told: &str) {
    if let Some(status) = call.status {
        let real = real.status.expect("is over");
        match status.source {
            StatusSource::Wire | StatusSource::Inferred => assert_eq!(status, real, "{told}"),
            // Success and failure; not which.
            StatusSource::Shape => assert_eq!(status.code == 0, real.code == 0, "{told}"),
        }
    }
    let known = points(real).into_iter().flatten().chain([real.started_ns, real.ended_ns]);
    assert!(known.into_iter().any(|time_ns| time_ns == call.ended_ns), "an end at a time of nothing: {told}");
}

fn points(call: &Call) -> [Option<u64>; 5] {
    let points = &call.points;
    [
        points.request_written_ns,
        points.request_read_ns,
        points.response_started_ns,
        points.response_written_ns,
        points.response_read_ns,
    ]
}

/// What is not told, or not wholly, is counted: by the programs as lost, and here by its cause.
fn check_missing(truth: &Truth, account: &Account, lost: &[&Told]) {
    let without_headers: BTreeSet<u32> =
        lost.iter().filter(|record| record.kind == Kind::Headers && record.end == CLIENT).map(|r| r.stream).collect();
    for stream in truth.calls.keys().filter(|stream| !account.finished.contains_key(stream)) {
        assert!(without_headers.contains(stream), "stream {stream} is missing, and none of its headers were lost");
    }
    let unseen = account.finished.values().filter(|call| !call.is_end_known()).count();
    assert_eq!(account.gap("call_end_unseen"), unseen as u64);
    for call in account.finished.values().filter(|call| !call.is_end_known()) {
        assert!(call.lost_track, "{call:?}");
    }
}

#[test]
fn without_an_announcement_nothing_is_told() {
    for truth in TRUTHS.iter() {
        let account = Account::of(&truth.records[1..]);
        assert_eq!(account.finished, BTreeMap::new());
        let strays = truth.records[1..].iter().filter(|record| record.kind != Kind::Closed).count();
        assert_eq!(account.gap("stray_record"), strays as u64);
        assert_eq!(account.capture.kept(), Kept::default());
    }
}
