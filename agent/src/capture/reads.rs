//! Matches what one end writes with what the other reads, by offset in the stream of bytes between them.
//!
//! A point waits until the reader has been handed its last byte. Reads may be told of before the write that they read: in
//! tracepoint mode a write is told of at its return. So the latest reads are remembered, too.

use std::collections::VecDeque;

use super::limits::{MAX_READS, MAX_WAITING};

/// Which point of a call waits for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    RequestRead,
    ResponseRead,
}

/// A point of a stream that was reached, and when; `None` if the read that reached it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub stream: u32,
    pub point: Point,
    pub time_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    offset: u64,
    told_ns: u64,
    /// When it reached its offset, if that is known.
    time_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    offset: u64,
    stream: u32,
    point: Point,
}

/// The reads of one direction.
#[derive(Debug, Default)]
pub struct Reads {
    /// In the order of their offsets.
    reads: VecDeque<Read>,
    /// Earlier ones are not remembered any more.
    forgotten: bool,
    /// In the order of their offsets.
    waiting: VecDeque<Waiting>,
    /// Sequence number of the latest read.
    sequence: u32,
    /// Points given up because too many waited.
    pub given_up: u64,
}

impl Reads {
    /// The reader was handed everything up to `offset`. `sequence` tells whether reads before it were lost: then the points
    /// that this one passes were reached at an unknown time.
    pub fn read(&mut self, offset: u64, sequence: u32, time_ns: u64, mut reached: impl FnMut(Reached)) {
        let gap = sequence != self.sequence.wrapping_add(1);
        self.sequence = sequence;
        let told_ns = time_ns;
        let time_ns = if gap { None } else { Some(time_ns) };
        while self.reads.back().is_some_and(|last| last.offset > offset) {
            self.reads.pop_back(); // it had counted more than was written
        }
        if self.reads.len() == MAX_READS {
            self.reads.pop_front();
            self.forgotten = true;
        }
        self.reads.push_back(Read { offset, told_ns, time_ns });
        while let Some(first) = self.waiting.front().filter(|first| first.offset <= offset) {
            reached(Reached { stream: first.stream, point: first.point, time_ns });
            self.waiting.pop_front();
        }
    }

    /// How much was written was unknown, and is counted from `offset` on since `monotonic_ns`: reads before that, told to have reached
    /// more, reached nothing that is known.
    pub fn counted_anew(&mut self, offset: u64, monotonic_ns: u64) {
        self.reads.retain(|read| read.offset <= offset || read.told_ns > monotonic_ns);
    }

    /// Points that wait.
    pub fn waiting_points(&self) -> usize {
        self.waiting.len()
    }

    /// Waits until everything up to `offset` was read, or says that it was.
    pub fn wait(&mut self, offset: u64, stream: u32, point: Point) -> Option<Reached> {
        if self.reads.back().is_some_and(|last| last.offset >= offset) {
            // Before the first read remembered, an earlier one may have reached it.
            let index = self.reads.partition_point(|read| read.offset < offset);
            let unsure = index == 0 && self.forgotten;
            let time_ns = if unsure { None } else { self.reads[index].time_ns };
            return Some(Reached { stream, point, time_ns });
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        // The end of a streaming call's first message is told when its second begins: others that end later were told before.
        let after = self.waiting.iter().rposition(|waiting| waiting.offset <= offset).map_or(0, |index| index + 1);
        self.waiting.insert(after, Waiting { offset, stream, point });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(reads: &mut Reads, offset: u64, sequence: u32, time_ns: u64) -> Vec<(u32, Option<u64>)> {
        let mut all = Vec::new();
        reads.read(offset, sequence, time_ns, |reached| all.push((reached.stream, reached.time_ns)));
        all
    }

    #[test]
    fn a_point_is_reached_by_the_first_read_that_holds_its_last_byte() {
        let mut reads = Reads::default();
        assert_eq!(reads.wait(10, 1, Point::RequestRead), None);
        assert_eq!(reads.wait(30, 3, Point::RequestRead), None);
        assert_eq!(collect(&mut reads, 9, 1, 100), []);
        assert_eq!(collect(&mut reads, 30, 2, 200), [(1, Some(200)), (3, Some(200))]);
    }

    #[test]
    fn a_point_that_is_told_of_late_is_reached_in_its_place() {
        let mut reads = Reads::default();
        reads.wait(30, 3, Point::ResponseRead);
        reads.wait(20, 1, Point::ResponseRead);
        reads.wait(25, 5, Point::ResponseRead);
        assert_eq!(collect(&mut reads, 20, 1, 100), [(1, Some(100))]);
        assert_eq!(collect(&mut reads, 30, 2, 200), [(5, Some(200)), (3, Some(200))]);
    }

    #[test]
    fn a_read_that_is_told_of_before_the_write_counts() {
        let mut reads = Reads::default();
        collect(&mut reads, 10, 1, 100);
        collect(&mut reads, 20, 2, 200);
        let reached = |offset| Reads::wait(&mut { copy(&reads) }, offset, 1, Point::RequestRead).unwrap().time_ns;
        assert_eq!([reached(5), reached(10), reached(11), reached(20)], [Some(100), Some(100), Some(200), Some(200)]);
        assert_eq!(reads.wait(21, 1, Point::RequestRead), None);
    }

    #[test]
    fn after_a_lost_read_the_time_of_what_it_may_have_reached_is_unknown() {
        let mut reads = Reads::default();
        reads.wait(10, 1, Point::ResponseRead);
        reads.wait(30, 3, Point::ResponseRead);
        assert_eq!(collect(&mut reads, 20, 2, 200), [(1, None)]);
        assert_eq!(collect(&mut reads, 30, 3, 300), [(3, Some(300))]);
    }

    #[test]
    fn reads_forgotten_make_a_time_unknown_not_wrong() {
        let mut reads = Reads::default();
        for i in 1..=MAX_READS as u64 + 1 {
            collect(&mut reads, i * 10, i as u32, i);
        }
        assert_eq!(reads.wait(5, 1, Point::RequestRead).unwrap().time_ns, None);
        assert_eq!(reads.wait(21, 1, Point::RequestRead).unwrap().time_ns, Some(3));
    }

    #[test]
    fn a_read_of_what_was_never_counted_reaches_nothing() {
        let mut reads = Reads::default();
        collect(&mut reads, 10, 1, 100);
        collect(&mut reads, 30, 2, 200); // 20 of these are written by a call that does not tell how many
        let mut told_later = copy(&reads);
        reads.counted_anew(10, 300);
        assert_eq!(reads.wait(20, 1, Point::RequestRead), None);
        assert_eq!(collect(&mut reads, 20, 3, 900), [(1, Some(900))]);
        told_later.counted_anew(10, 150);
        assert_eq!(told_later.wait(20, 1, Point::RequestRead).unwrap().time_ns, Some(200));
    }

    #[test]
    fn a_reader_that_was_ahead_is_so_no_more() {
        let mut reads = Reads::default();
        collect(&mut reads, 150, 1, 100);
        collect(&mut reads, 120, 3, 200); // counted anew
        assert_eq!(reads.wait(110, 1, Point::RequestRead).unwrap().time_ns, None);
        assert_eq!(reads.wait(130, 3, Point::RequestRead), None);
        assert_eq!(collect(&mut reads, 140, 4, 300), [(3, Some(300))]);
    }

    #[test]
    fn points_that_nobody_reads_are_bounded() {
        let mut reads = Reads::default();
        for i in 0..MAX_WAITING as u64 + 2 {
            reads.wait(i + 1, 1, Point::ResponseRead);
        }
        assert_eq!((reads.waiting.len(), reads.given_up), (MAX_WAITING, 2));
    }

    fn copy(reads: &Reads) -> Reads {
        let Reads { reads, forgotten, waiting, sequence, given_up } = reads;
        let (reads, waiting) = (reads.clone(), waiting.clone());
        Reads { reads, forgotten: *forgotten, waiting, sequence: *sequence, given_up: *given_up }
    }
}
