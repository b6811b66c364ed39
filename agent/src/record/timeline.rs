//! Draws a pod's timeline from its evidence: a pure function, so that the order in which evidence came changes nothing.

use crate::api::{EntryKind, PodSummary, PodTimeline, Slowest};
use crate::pod::Pod;

use super::bar::{Bar, What};
use super::cover::{self, Interval};
use super::entries;
use super::picture::Picture;
use super::pod_record::Evidence;
use super::pulls::Pulls;
use super::start::Start;
use super::step::Step;

/// `None` if the evidence shows nothing that started the pod.
pub(super) fn draw(pod: &Pod, evidence: &Evidence, pulls: &Pulls, now_ns: u64) -> Option<PodTimeline> {
    let picture = Picture::new(evidence, now_ns)?;
    let mut bars = with_pauses(&picture, pod, pulls, now_ns);
    bars.sort_by_key(Bar::sort_key);
    let summary = summary(pod, picture.start, &bars);
    Some(PodTimeline { summary, entries: bars.iter().map(entries::entry).collect() })
}

/// As [`draw`], without the entries.
pub(super) fn summarize(pod: &Pod, evidence: &Evidence, pulls: &Pulls, now_ns: u64) -> Option<PodSummary> {
    let picture = Picture::new(evidence, now_ns)?;
    Some(summary(pod, picture.start, &with_pauses(&picture, pod, pulls, now_ns)))
}

fn summary(pod: &Pod, start: Start, bars: &[Bar<'_>]) -> PodSummary {
    let window = start.interval();
    PodSummary {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        state: start.state,
        started_at: rfc3339(start.begin_ns),
        duration_seconds: seconds(window.length_ns()),
        accounted_ratio: cover::covered_ratio(window, bars.iter().filter(|bar| bar.covers()).map(|bar| bar.interval)),
        slowest: slowest(bars, window),
    }
}

fn slowest(bars: &[Bar<'_>], window: Interval) -> Option<Slowest> {
    bars.iter()
        .filter(|bar| bar.kind() != EntryKind::Sync)
        .filter_map(|bar| Some((bar.interval.within(window)?.length_ns(), bar)))
        // A parent is at least as long as its children: of equals the outermost and first is meant.
        .max_by_key(|&(length_ns, bar)| (length_ns, std::cmp::Reverse((bar.depth, bar.sort_key()))))
        .map(|(length_ns, bar)| Slowest { name: bar.name().into_owned(), seconds: seconds(length_ns) })
}

/// All bars of the picture, and the pauses of the start cut into the waits that the record proves and the gaps that are left.
fn with_pauses<'a>(picture: &Picture<'a>, pod: &Pod, pulls: &'a Pulls, now_ns: u64) -> Vec<Bar<'a>> {
    let mut bars = picture.bars();
    let window = picture.start.interval();
    let covering = || bars.iter().filter(|bar| bar.covers());
    let pauses = cover::gaps(window, covering().map(|bar| bar.interval));
    let outermost = |bar: &&Bar<'a>| std::cmp::Reverse((bar.depth, bar.sort_key()));
    let mut explained = Vec::new();
    for pause in pauses {
        let after = covering().filter(|bar| bar.interval.to_ns == pause.from_ns).max_by_key(outermost);
        let before = covering().filter(|bar| bar.interval.from_ns == pause.to_ns).max_by_key(outermost);
        // The first pause follows no call, but the sync that the start began with.
        let begins = |bar: &&Bar<'a>| bar.kind() == EntryKind::Sync && bar.interval.from_ns == pause.from_ns;
        let opening = bars.iter().filter(|_| pause.from_ns == window.from_ns).find(begins);

        let neighbours = after.into_iter().chain(before).map(|bar| bar.depth);
        let depth = neighbours.min().or(opening.map(|sync| sync.depth + 1)).unwrap_or(0);
        let waits = match before.map(|bar| &bar.what) {
            Some(What::Call(pull)) if pull.step() == Step::PullImage => {
                pulls.before(pod, pull.wire.map(|wire| wire.connection), pause)
            }
            _ => Vec::new(),
        };
        let gap = What::Gap {
            after: after.and_then(Bar::label),
            opening: opening.and_then(Bar::label),
            before: before.and_then(Bar::label),
            source: after.or(before).or(opening).map(Bar::source),
            is_running: pause.to_ns == now_ns && before.is_none(),
        };
        let left = cover::gaps(pause, waits.iter().map(|&(part, _)| part));
        explained.extend(left.into_iter().map(|interval| Bar { interval, depth, what: gap }));
        explained.extend(waits.into_iter().map(|(interval, pull)| Bar { interval, depth, what: What::Wait(pull) }));
    }
    bars.extend(explained);
    bars
}

fn seconds(length_ns: u64) -> f64 {
    length_ns as f64 / 1e9
}

fn rfc3339(unix_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns))
        .map(|time| format!("{time:.9}"))
        .expect("64 bits of nanoseconds end in the year 2554, within a timestamp's range")
}
