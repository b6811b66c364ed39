//! Names of methods, spans and sockets, each kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// A node uses a few hundred names; anything beyond comes from a sender that puts data into them.
const MAX_NAMES: usize = 1024;

/// Longer names are cut: the recorder shows them to people.
const MAX_NAME_BYTES: usize = 256;

/// What an entry takes beside its bytes: the set's slot and the counts of the `Arc`, rounded up.
const ENTRY_BYTES: usize = 48;

#[derive(Debug, Default)]
pub(super) struct Names {
    names: HashSet<Arc<str>>,
    bytes: usize,
}

impl Names {
    pub(super) fn intern(&mut self, name: &str) -> Arc<str> {
        let name = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() == MAX_NAMES {
            // What is in use stays alive, uncounted, until the calls and spans that use it go.
            *self = Self::default();
        }
        let name: Arc<str> = name.into();
        self.bytes += name.len() + ENTRY_BYTES;
        self.names.insert(Arc::clone(&name));
        name
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let mut names = Names::default();
        let first = names.intern("syncPod");
        let bytes = names.bytes();
        assert!(Arc::ptr_eq(&first, &names.intern("syncPod")));
        assert_eq!(names.bytes(), bytes);
    }

    #[test]
    fn names_without_end_take_no_more_than_their_share() {
        let mut names = Names::default();
        for number in 0..5 * MAX_NAMES {
            names.intern(&format!("{number} {}", "é".repeat(MAX_NAME_BYTES)));
        }
        assert!(names.names.len() <= MAX_NAMES);
        assert!(names.bytes() <= MAX_NAMES * (MAX_NAME_BYTES + ENTRY_BYTES));
    }
}
