//! Method names on a connection that is older than the agent.
//!
//! A `:path` that was in the header table before the attach is an index to nothing. A joined span tells the method of one call; the
//! entry that its request referred to then stands for that path wherever it comes again. Which of the unknown entries at the
//! start of a request is the path is found out, not assumed: the one at the other place (`:authority`) is the same for every method.

use std::collections::HashMap;
use std::sync::Arc;

use spanlet_http2::{Decoder, EntryId, HeaderList, grpc_timeout};

use crate::call::Traceparent;

/// Places of `:path` and `:authority` among the fields: grpc-go writes `:path` third, Rust's h2 fourth.
const PLACES: [usize; 2] = [2, 3];

/// Entries remembered: an HPACK table of 4,096 bytes has at most 128.
const MAX_ENTRIES: usize = 128;

/// The unknown entries at the places where the path may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidates([Option<EntryId>; PLACES.len()]);

/// What has been learnt of one connection's request headers.
#[derive(Debug, Default)]
pub struct Names {
    methods: HashMap<EntryId, Arc<str>>,
    /// The place was seen with one entry for two methods: it is not the path's.
    wrong: [bool; PLACES.len()],
}

impl Candidates {
    /// The fields of a request of which nothing is known.
    pub fn of(list: &HeaderList) -> Self {
        let entry = |place: usize| {
            let field = list.fields().get(place)?;
            field.name.unknown().and(field.value.unknown())
        };
        Self(PLACES.map(entry))
    }

    fn any(self) -> bool {
        self.0.iter().any(Option::is_some)
    }
}

impl Names {
    /// A joined span told the method of a request with these entries.
    pub fn learn(&mut self, candidates: Candidates, method: &Arc<str>) {
        if self.methods.len() >= MAX_ENTRIES {
            self.methods.clear(); // entries of a table that has turned over since
        }
        for (place, entry) in candidates.0.iter().enumerate() {
            let Some(entry) = entry else { continue };
            let known = self.methods.entry(*entry).or_insert_with(|| Arc::clone(method));
            self.wrong[place] |= known != method;
        }
    }

    /// The method of a request, if its path's entry has been told.
    pub fn method_of(&self, candidates: Candidates) -> Option<Arc<str>> {
        if !candidates.any() {
            return None;
        }
        let mut possible = (0..PLACES.len()).filter(|place| candidates.0[*place].is_some() && !self.wrong[*place]);
        let place = possible.next()?;
        if possible.next().is_some() {
            return None; // not known yet which of the two is the path
        }
        self.methods.get(&candidates.0[place]?).cloned()
    }
}

/// Names that a late joiner never sees again, told by the shape of their values: no other header of gRPC has it. The names stay in the
/// sender's table through every new value.
pub fn teach_by_shape(decoder: &mut Decoder, list: &HeaderList) {
    for field in list.fields() {
        let (Some(entry), Some(value)) = (field.name.unknown(), field.value.known()) else { continue };
        if Traceparent::parse(value).is_some() {
            decoder.learn_name(entry, b"traceparent");
        } else if grpc_timeout::parse(value).is_some() {
            decoder.learn_name(entry, b"grpc-timeout");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as a late decoder gives them: each block refers to the old entries `path` and `authority` by index.
    fn candidates(path: u8, authority: u8) -> Candidates {
        let mut decoder = Decoder::late();
        let block = [0x83, 0x86, 0x80 | path, 0x80 | authority];
        Candidates::of(&decoder.decode(&block).unwrap())
    }

    #[test]
    fn the_path_is_the_place_that_changes_with_the_method() {
        let (list, status): (Arc<str>, Arc<str>) = (Arc::from("S/List"), Arc::from("S/Status"));
        let mut names = Names::default();
        names.learn(candidates(70, 62), &list);
        assert_eq!(names.method_of(candidates(70, 62)), None, "either place could be the path");
        names.learn(candidates(71, 62), &status);
        assert_eq!(names.method_of(candidates(70, 62)), Some(list));
        assert_eq!(names.method_of(candidates(71, 62)), Some(status));
        assert_eq!(names.method_of(candidates(72, 62)), None);
    }

    #[test]
    fn a_single_unknown_entry_is_the_path() {
        let method: Arc<str> = Arc::from("S/List");
        let alone = Candidates([candidates(70, 62).0[0], None]);
        let mut names = Names::default();
        names.learn(alone, &method);
        assert_eq!(names.method_of(alone), Some(method));
        assert_eq!(names.method_of(Candidates::default()), None);
    }
}
