//! The dynamic table (RFC 7541 §2.3.2, §4), of which the oldest part may be unknown.
//!
//! ```text
//!   index     62   63   64   65            66  …
//!           [ e2 ][ e1 ][ e0 ]│[ -1 ][ -2 ][ … ]       ids; each insertion shifts the indices, never the ids
//!             inserted since  │  prior: up to `prior_room` entries from before the observer joined
//! ```
//!
//! The size of an entry whose name is unknown is known only from below, so this table may hold entries that the sender's
//! no longer holds. It never lacks one, and a sender never refers to what it evicted, so an index never means the wrong entry.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::field::{EntryId, Octets};
use crate::limits::{ENTRY_OVERHEAD_BYTES, MAX_TABLE_BYTES};

#[derive(Debug)]
pub(super) struct Table {
    /// Inserted since the observer joined; the newest in front.
    entries: VecDeque<Entry>,
    next_id: i64,
    /// Of `entries`; a lower bound if a name is unknown.
    size_bytes: usize,
    max_bytes: usize,
    /// How many entries from before the observer joined may still be in the sender's table.
    prior_room: usize,
    /// What was taught about those.
    learned: BTreeMap<EntryId, Entry>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: Octets,
    pub(super) value: Octets,
}

impl Entry {
    fn size_bytes(&self) -> usize {
        self.name.len_at_least() + self.value.len_at_least() + ENTRY_OVERHEAD_BYTES
    }
}

impl Table {
    /// The empty table of a connection that is watched from its first byte.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), next_id: 0, size_bytes: 0, max_bytes, prior_room: 0, learned: BTreeMap::new() }
    }

    /// A table of which nothing is known but its maximum size.
    pub(super) fn unknown(max_bytes: usize) -> Self {
        Self { prior_room: max_bytes / ENTRY_OVERHEAD_BYTES, ..Self::new(max_bytes) }
    }

    /// Forgets everything. Ids go on above all that this table ever gave out.
    pub(super) fn forget(&mut self) {
        let next_id = self.next_id + (MAX_TABLE_BYTES / ENTRY_OVERHEAD_BYTES) as i64;
        *self = Self { next_id, ..Self::unknown(self.max_bytes) };
    }

    /// The entry at a position counted from the newest (HPACK index 62 is position 0).
    pub(super) fn entry(&self, position: usize) -> Option<Entry> {
        if let Some(entry) = self.entries.get(position) {
            return Some(entry.clone());
        }
        if position - self.entries.len() >= self.prior_room {
            return None;
        }
        let id = EntryId(self.next_id - 1 - position as i64);
        let unknown = || Entry { name: Octets::Unknown(id), value: Octets::Unknown(id) };
        Some(self.learned.get(&id).cloned().unwrap_or_else(unknown))
    }

    /// RFC 7541 §4.4: evicts what has no room beside the new entry; an entry larger than the table empties it.
    pub(super) fn insert(&mut self, entry: Entry) {
        if entry.size_bytes() > self.max_bytes {
            self.clear();
            return;
        }
        self.size_bytes += entry.size_bytes();
        self.next_id += 1;
        self.entries.push_front(entry);
        self.evict();
    }

    /// Empties the table, which is what an entry larger than it does.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.size_bytes = 0;
        self.prior_room = 0;
        self.learned.clear();
    }

    /// RFC 7541 §4.3.
    pub(super) fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
        self.evict();
    }

    /// Sets the name wherever it came from entry `id`, and both strings if that entry is one from before the observer
    /// joined. `false` if there is no such name or entry any more, or it could not be in a table of this size.
    pub(super) fn learn(&mut self, id: EntryId, name: &Bytes, value: Option<&Bytes>) -> bool {
        if name.len() + value.map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES > self.max_bytes {
            return false;
        }
        let mut used = false;
        for entry in self.entries.iter_mut().chain(self.learned.values_mut()) {
            if entry.name == Octets::Unknown(id) {
                entry.name = Octets::Known(name.clone());
                used = true;
            }
        }
        if self.is_prior(id) {
            let value = value.map_or(Octets::Unknown(id), |value| Octets::Known(value.clone()));
            self.learned.insert(id, Entry { name: Octets::Known(name.clone()), value });
            used = true;
        }
        self.size_bytes = self.entries.iter().map(Entry::size_bytes).sum();
        self.evict();
        used
    }

    /// Whether every entry that a sender can refer to is known.
    pub(super) fn is_known(&self) -> bool {
        self.prior_room == 0 && self.entries.iter().all(|entry| entry.name.known().is_some())
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    fn is_prior(&self, id: EntryId) -> bool {
        (self.oldest_id()..self.next_id - self.entries.len() as i64).contains(&id.0)
    }

    /// The oldest id that may still be referred to.
    fn oldest_id(&self) -> i64 {
        self.next_id - (self.entries.len() + self.prior_room) as i64
    }

    fn evict(&mut self) {
        let free_bytes = self.max_bytes.saturating_sub(self.size_bytes);
        self.prior_room = self.prior_room.min(free_bytes / ENTRY_OVERHEAD_BYTES);
        while self.size_bytes > self.max_bytes {
            let evicted = self.entries.pop_back().expect("a size above 0 comes from entries");
            self.size_bytes -= evicted.size_bytes();
        }
        if !self.learned.is_empty() {
            self.learned = self.learned.split_off(&EntryId(self.oldest_id()));
        }
    }
}
