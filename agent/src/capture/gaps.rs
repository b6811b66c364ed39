//! Why capture knows less of calls than the kernel told.

/// Counts by cause; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gaps {
    /// Records of connections and processes that are not known: not announced, or too many.
    pub strays: u64,
    /// Connections not followed because too many were open.
    pub connections_refused: u64,
    /// Calls not followed because too many were open on their connection.
    pub streams_refused: u64,
    /// Calls whose end was not seen: how and when they ended is not known.
    pub ends_unseen: u64,
    /// Directions whose frames or header tables are no longer known.
    pub tracks_lost: u64,
    /// Points of calls that waited for a read for too long.
    pub points_given_up: u64,
    /// Connections that were found to be over.
    pub closes_unseen: u64,
    /// Processes forgotten before their end because too many ran.
    pub execs_forgotten: u64,
}

impl Gaps {
    pub fn plus(self, other: Self) -> Self {
        Self {
            strays: self.strays + other.strays,
            connections_refused: self.connections_refused + other.connections_refused,
            streams_refused: self.streams_refused + other.streams_refused,
            ends_unseen: self.ends_unseen + other.ends_unseen,
            tracks_lost: self.tracks_lost + other.tracks_lost,
            points_given_up: self.points_given_up + other.points_given_up,
            closes_unseen: self.closes_unseen + other.closes_unseen,
            execs_forgotten: self.execs_forgotten + other.execs_forgotten,
        }
    }

    /// Each cause's label in metrics, and its count.
    pub fn by_cause(self) -> [(&'static str, u64); 8] {
        [
            ("stray_record", self.strays),
            ("connection_refused", self.connections_refused),
            ("stream_refused", self.streams_refused),
            ("call_end_unseen", self.ends_unseen),
            ("track_lost", self.tracks_lost),
            ("point_given_up", self.points_given_up),
            ("close_unseen", self.closes_unseen),
            ("exec_forgotten", self.execs_forgotten),
        ]
    }
}
