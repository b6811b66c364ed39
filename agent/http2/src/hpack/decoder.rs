//! Decodes header blocks (RFC 7541 §3.2, §6) and keeps the dynamic table.

use bytes::Bytes;

use super::error::{DecodeError, Malformed};
use super::field::{EntryId, Field, HeaderList, Octets};
use super::table::{Entry, Table};
use super::{huffman, integer, static_table};
use crate::limits::{DEFAULT_TABLE_BYTES, MAX_STRING_BYTES, MAX_TABLE_BYTES};

/// The decoder of one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// What a size update may ask for.
    size_limit_bytes: usize,
    lost: bool,
    counters: Counters,
}

/// How much a decoder knows of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// Every entry that can be referred to is known: no field will be unknown.
    Exact,
    /// Entries from before the observer joined may be referred to, or carry on in names.
    Late,
    /// A block was malformed or missed; nothing decodes until [`Decoder::restart_late`].
    Lost,
}

/// What a decoder met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks decoded to their end.
    pub blocks: u64,
    /// Blocks that were not.
    pub malformed: u64,
    /// Fields left out of a [`HeaderList`] by one of its limits.
    pub fields_refused: u64,
    /// Names and values longer than [`MAX_STRING_BYTES`].
    pub strings_refused: u64,
}

impl Decoder {
    /// For a connection watched from its first byte.
    pub fn new() -> Self {
        Self::with_table(Table::new(DEFAULT_TABLE_BYTES))
    }

    /// For a connection that was joined in the middle: nothing is known of the table but that it has the default size.
    /// (A larger one makes old indices malformed; never wrong.)
    pub fn late() -> Self {
        Self::with_table(Table::unknown(DEFAULT_TABLE_BYTES))
    }

    fn with_table(table: Table) -> Self {
        Self { table, size_limit_bytes: MAX_TABLE_BYTES, lost: false, counters: Counters::default() }
    }

    /// Limits size updates to what the receiver of the blocks announced (SETTINGS_HEADER_TABLE_SIZE, RFC 9113 §6.5.2).
    /// Until then, and at most, [`MAX_TABLE_BYTES`].
    pub fn set_size_limit_bytes(&mut self, limit_bytes: usize) {
        self.size_limit_bytes = limit_bytes.min(MAX_TABLE_BYTES);
    }

    /// What a size update may ask for.
    pub fn size_limit_bytes(&self) -> usize {
        self.size_limit_bytes
    }

    /// Decodes one whole block (HEADERS or PUSH_PROMISE with its CONTINUATIONs, without padding and priority).
    pub fn decode(&mut self, block: &[u8]) -> Result<HeaderList, DecodeError> {
        let mut list = HeaderList::default();
        self.decode_into(block, &mut list).map(|()| list)
    }

    /// As [`decode`](Self::decode). After an error `list` holds the fields before it: they are right, and all there is of
    /// a block that was copied in part.
    pub fn decode_into(&mut self, block: &[u8], list: &mut HeaderList) -> Result<(), DecodeError> {
        list.clear();
        if self.lost {
            return Err(DecodeError::LostTrack);
        }
        let result = self.read_block(block, list);
        self.counters.fields_refused += u64::from(list.refused());
        match result {
            Ok(()) => {
                self.counters.blocks += 1;
                Ok(())
            }
            Err(malformed) => {
                self.counters.malformed += 1;
                self.lost = true;
                Err(malformed.into())
            }
        }
    }

    /// Tells the decoder that a block went by unseen.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Goes on as a late joiner, after [`Exactness::Lost`] or not. Earlier [`EntryId`]s stand for nothing from then on, and
    /// are not given out again.
    pub fn restart_late(&mut self) {
        if self.table.max_bytes() < DEFAULT_TABLE_BYTES {
            self.table.set_max_bytes(DEFAULT_TABLE_BYTES); // too large is never wrong, too small is
        }
        self.table.forget();
        self.lost = false;
    }

    /// Teaches what entry `id` of an [`Octets::Unknown`] stands for. The caller answers for it being true.
    ///
    /// `false` if nothing can refer to that entry any more.
    pub fn learn(&mut self, id: EntryId, name: &[u8], value: &[u8]) -> bool {
        self.table.learn(id, &Bytes::copy_from_slice(name), Some(&Bytes::copy_from_slice(value)))
    }

    /// As [`learn`](Self::learn), when only the name is known: enough for fields that bring their own value.
    pub fn learn_name(&mut self, id: EntryId, name: &[u8]) -> bool {
        self.table.learn(id, &Bytes::copy_from_slice(name), None)
    }

    /// How much of the table is known now.
    pub fn exactness(&self) -> Exactness {
        match (self.lost, self.table.is_known()) {
            (true, _) => Exactness::Lost,
            (false, true) => Exactness::Exact,
            (false, false) => Exactness::Late,
        }
    }

    /// What was met so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn read_block(&mut self, block: &[u8], list: &mut HeaderList) -> Result<(), Malformed> {
        let mut input = block;
        let mut fields_began = false;
        while let Some(&first) = input.first() {
            if first & 0b1110_0000 == 0b0010_0000 {
                if fields_began {
                    return Err(Malformed::SizeUpdateLate);
                }
                self.update_size(&mut input)?;
                continue;
            }
            fields_began = true;
            match self.read_field(first, &mut input)? {
                Some(field) => list.push(field),
                None => list.refuse(),
            }
        }
        Ok(())
    }

    /// RFC 7541 §6.3.
    fn update_size(&mut self, input: &mut &[u8]) -> Result<(), Malformed> {
        let size_bytes = integer::take(input, 5)?;
        if size_bytes > self.size_limit_bytes as u64 {
            return Err(Malformed::SizeUpdateTooLarge(size_bytes));
        }
        self.table.set_max_bytes(size_bytes as usize);
        Ok(())
    }

    /// One field representation (RFC 7541 §6.1, §6.2); `None` if a string of it is refused.
    fn read_field(&mut self, first: u8, input: &mut &[u8]) -> Result<Option<Field>, Malformed> {
        if first & 0b1000_0000 != 0 {
            let Entry { name, value } = self.indexed(integer::take(input, 7)?)?;
            return Ok(Some(Field { name, value, never_indexed: false }));
        }
        let incremental = first & 0b0100_0000 != 0;
        let never_indexed = !incremental && first & 0b0001_0000 != 0;
        let name_index = integer::take(input, if incremental { 6 } else { 4 })?;
        let name = match name_index {
            0 => self.take_string(input)?.map(Octets::Known),
            index => Some(self.indexed(index)?.name),
        };
        let value = self.take_string(input)?.map(Octets::Known);
        let (Some(name), Some(value)) = (name, value) else {
            if incremental {
                self.table.clear(); // a refused string is larger than any table
            }
            return Ok(None);
        };
        if incremental {
            self.table.insert(Entry { name: name.clone(), value: value.clone() });
        }
        Ok(Some(Field { name, value, never_indexed }))
    }

    /// RFC 7541 §2.3.3: static table first, then the dynamic one from its newest entry.
    fn indexed(&self, index: u64) -> Result<Entry, Malformed> {
        let position = index.checked_sub(1).ok_or(Malformed::Index(index))? as usize;
        if let Some((name, value)) = static_table::ENTRIES.get(position) {
            let octets = |text: &'static str| Octets::Known(Bytes::from_static(text.as_bytes()));
            return Ok(Entry { name: octets(name), value: octets(value) });
        }
        self.table.entry(position - static_table::ENTRIES.len()).ok_or(Malformed::Index(index))
    }

    /// RFC 7541 §5.2; `None` for a string that is too long, which is skipped.
    fn take_string(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, Malformed> {
        let huffman_coded = input.first().is_some_and(|first| first & 0x80 != 0);
        let len = integer::take(input, 7)? as usize;
        let (raw, rest) = input.split_at_checked(len).ok_or(Malformed::Truncated)?;
        *input = rest;
        let string = if huffman_coded {
            let mut decoded = Vec::with_capacity((len * 8 / huffman::SHORTEST_CODE_BITS).min(MAX_STRING_BYTES));
            huffman::decode(raw, MAX_STRING_BYTES, &mut decoded)?.then(|| Bytes::from(decoded))
        } else {
            (len <= MAX_STRING_BYTES).then(|| Bytes::copy_from_slice(raw))
        };
        self.counters.strings_refused += u64::from(string.is_none());
        Ok(string)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}
