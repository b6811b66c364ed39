//! Reads fields in place. All offsets count from the start of the whole request, also inside nested messages.

use super::{FIXED32, FIXED64, GROUP_END, GROUP_START, LEN, VARINT};
use crate::error::Fault;
use crate::limits::MAX_NESTING;

/// Goes through the fields of one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// The request from its start to the end of the message.
    bytes: &'a [u8],
    position: usize,
}

/// One field of a message. What it holds is told by the wire type in its tag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// Offset of the tag.
    pub(crate) start: usize,
    /// Field number × 8 + wire type.
    pub(crate) tag: u32,
    /// Of a varint and of a 64-bit field.
    pub(crate) value: u64,
    /// Of a length-prefixed field: a string, bytes or a nested message.
    pub(crate) body: Body,
}

/// Where the content of a length-prefixed field lies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Body {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What is wrong, and at which offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Malformed {
    pub(crate) fault: Fault,
    pub(crate) offset: usize,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Reads the message that lies at `body` of `request`; an end beyond the request reads as the request's end.
    pub(crate) fn new(request: &'a [u8], body: Body) -> Self {
        Self { bytes: &request[..body.end.min(request.len())], position: body.start }
    }

    /// Reads a message nested in the one of this reader.
    #[inline]
    pub(crate) fn nested(&self, body: Body) -> Self {
        Self::new(self.bytes, body)
    }

    /// What of the message has not been read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// The content of a field of this reader's message.
    pub(crate) fn slice(&self, body: Body) -> &'a [u8] {
        self.bytes.get(body.start..body.end).unwrap_or_default()
    }

    /// The next field, `None` at the end of the message.
    ///
    /// Inlined with what it calls, except for what is rare: this is where parsing spends its time.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Field>, Malformed> {
        let start = self.position;
        if start >= self.bytes.len() {
            return Ok(None);
        }
        let tag = self.tag()?;
        let mut field = Field { start, tag, value: 0, body: Body::default() };
        match wire_type(tag) {
            LEN => field.body = self.body(start)?,
            VARINT => field.value = self.varint()?,
            FIXED64 => field.value = self.fixed64(start)?,
            FIXED32 => self.skip(4, start)?,
            _ => self.group(tag, start, MAX_NESTING)?,
        }
        Ok(Some(field))
    }

    /// The next field of a message that was checked when its request was parsed.
    #[inline]
    pub(crate) fn next_checked(&mut self) -> Option<Field> {
        self.next().ok().flatten()
    }

    /// The next field with this tag, of a message that was checked before.
    #[inline]
    pub(crate) fn next_tagged(&mut self, tag: u32) -> Option<Field> {
        loop {
            let field = self.next_checked()?;
            if field.tag == tag {
                return Some(field);
            }
        }
    }

    /// The content of the next field if it has this tag, of one byte, and a length of one byte: what the next field of a
    /// kind that follows itself usually is.
    #[inline]
    pub(crate) fn next_short(&mut self, tag: u32) -> Option<&'a [u8]> {
        let [next, len @ ..0x80, rest @ ..] = self.rest() else { return None };
        let body = rest.get(..usize::from(*len)).filter(|_| u32::from(*next) == tag)?;
        self.position += 2 + body.len();
        Some(body)
    }

    #[inline(always)]
    fn tag(&mut self) -> Result<u32, Malformed> {
        match self.bytes.get(self.position) {
            Some(&tag @ 0x08..=0x7f) => {
                self.position += 1;
                Ok(u32::from(tag))
            }
            _ => self.long_tag(),
        }
    }

    #[cold]
    fn long_tag(&mut self) -> Result<u32, Malformed> {
        let start = self.position;
        match u32::try_from(self.varint()?) {
            Ok(tag @ 0x08..) => Ok(tag),
            _ => Err(Malformed { fault: Fault::FieldNumber, offset: start }),
        }
    }

    /// Skips the group that the tag at `start` opens; `depth` groups may open inside each other. Any other wire type that
    /// comes here is an error.
    #[cold]
    fn group(&mut self, tag: u32, start: usize, depth: usize) -> Result<(), Malformed> {
        let fault = match wire_type(tag) {
            GROUP_START if depth > 0 => return self.skip_group(tag, depth - 1),
            GROUP_START => Fault::TooDeep,
            GROUP_END => Fault::StrayGroupEnd,
            _ => Fault::WireType,
        };
        Err(Malformed { fault, offset: start })
    }

    fn skip_group(&mut self, group: u32, depth: usize) -> Result<(), Malformed> {
        let end = group - u32::from(GROUP_START) + u32::from(GROUP_END);
        loop {
            let start = self.position;
            let tag = self.tag()?;
            if tag == end {
                return Ok(());
            }
            match wire_type(tag) {
                LEN => drop(self.body(start)?),
                VARINT => drop(self.varint()?),
                FIXED64 => self.skip(8, start)?,
                FIXED32 => self.skip(4, start)?,
                _ => self.group(tag, start, depth)?,
            }
        }
    }

    /// Reads a length prefix and skips what it counts.
    #[inline(always)]
    fn body(&mut self, field: usize) -> Result<Body, Malformed> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let start = self.position;
        self.skip(len, field)?;
        Ok(Body { start, end: self.position })
    }

    #[inline(always)]
    fn fixed64(&mut self, field: usize) -> Result<u64, Malformed> {
        let start = self.position;
        self.skip(8, field)?;
        Ok(self.bytes[start..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    #[inline(always)]
    fn skip(&mut self, len: usize, field: usize) -> Result<(), Malformed> {
        if len > self.bytes.len() - self.position {
            return Err(Malformed { fault: Fault::Truncated, offset: field });
        }
        self.position += len;
        Ok(())
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let start = self.position;
        let mut value = 0;
        for (shift, &byte) in (0..).step_by(7).zip(&self.bytes[start..]) {
            // The tenth byte holds bit 63 alone.
            if shift == 63 && byte > 1 {
                return Err(Malformed { fault: Fault::LongVarint, offset: start });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                self.position = start + shift / 7 + 1;
                return Ok(value);
            }
        }
        Err(Malformed { fault: Fault::Truncated, offset: start })
    }
}

// === impl Body ===

impl Body {
    pub(crate) const fn len(self) -> usize {
        self.end - self.start
    }
}

/// The wire type in a tag.
pub(crate) const fn wire_type(tag: u32) -> u8 {
    (tag & 7) as u8
}
