//! Header fields as an observer knows them: octets, or a reference to something said before it joined.

use std::fmt;

use bytes::Bytes;

use crate::limits::{ENTRY_OVERHEAD_BYTES, MAX_FIELDS, MAX_HEADER_LIST_BYTES};

/// One entry of a dynamic table, for as long as the decoder lives.
///
/// HPACK indices shift with every insertion; this number does not. Entries inserted since the observer joined count up
/// from 0; those that were there before count down from -1, the newest of them. Numbers are not used again after
/// [`Decoder::restart_late`](super::Decoder::restart_late).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub(super) i64);

impl EntryId {
    /// The number itself, for logs and for maps that outlive this type.
    pub fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A name or a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Octets {
    /// What was said (or taught).
    Known(Bytes),
    /// That of an entry which was in the table before the observer joined. Names carry the id of the entry in which the
    /// name was first said, through any number of entries made from it.
    Unknown(EntryId),
}

impl Octets {
    /// The octets, if known.
    pub fn known(&self) -> Option<&[u8]> {
        match self {
            Self::Known(octets) => Some(octets),
            Self::Unknown(_) => None,
        }
    }

    /// The entry that would have to be known, if it is not.
    pub fn unknown(&self) -> Option<EntryId> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(entry) => Some(*entry),
        }
    }

    /// Octets that are certain; an unknown string may be empty.
    pub(super) fn len_at_least(&self) -> usize {
        self.known().map_or(0, <[u8]>::len)
    }
}

/// One header field line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// Lower case, as on the wire; not validated.
    pub name: Octets,
    /// Any octets.
    pub value: Octets,
    /// Sent as "never indexed" (RFC 7541 §6.2.3): the sender holds it to be sensitive.
    pub never_indexed: bool,
}

impl Field {
    /// Whether name and value are known.
    pub fn is_known(&self) -> bool {
        self.name.known().is_some() && self.value.known().is_some()
    }

    /// Size as RFC 9113 §6.5.2 counts it; a lower bound if something is unknown.
    fn size_bytes(&self) -> usize {
        self.name.len_at_least() + self.value.len_at_least() + ENTRY_OVERHEAD_BYTES
    }
}

/// The fields of one header block, in order, within the limits of [`crate::limits`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderList {
    fields: Vec<Field>,
    size_bytes: usize,
    refused: u32,
}

impl HeaderList {
    /// The fields that were kept.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The fields that were kept, by value.
    pub fn into_fields(self) -> Vec<Field> {
        self.fields
    }

    /// The value of the first field with that name, known or not.
    pub fn value(&self, name: &[u8]) -> Option<&Octets> {
        self.fields.iter().find(|field| field.name.known() == Some(name)).map(|field| &field.value)
    }

    /// Fields left out because the list was too long or too large, or a string was.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// Whether all fields are here and all are known.
    pub fn is_known(&self) -> bool {
        self.refused == 0 && self.fields.iter().all(Field::is_known)
    }

    pub(super) fn clear(&mut self) {
        self.fields.clear();
        self.size_bytes = 0;
        self.refused = 0;
    }

    pub(super) fn push(&mut self, field: Field) {
        let size_bytes = self.size_bytes + field.size_bytes();
        if self.fields.len() == MAX_FIELDS || size_bytes > MAX_HEADER_LIST_BYTES {
            self.refuse();
            return;
        }
        self.size_bytes = size_bytes;
        self.fields.push(field);
    }

    pub(super) fn refuse(&mut self) {
        self.refused += 1;
    }
}
