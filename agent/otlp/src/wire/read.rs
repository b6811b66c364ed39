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

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// Offset of the tag.
    pub(crate) start: usize,
    pub(crate) number: u32,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Content {
    Varint(u64),
    Fixed64(u64),
    /// No 32-bit field is ever looked at.
    Fixed32,
    /// A string, bytes or a nested message.
    Bytes(Body),
    /// No OTLP field is a group; unknown ones are skipped whole.
    Group,
}

/// Where the content of a length-prefixed field lies.
#[derive(Debug, Clone, Copy)]
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

    /// The content of a field of this reader's message.
    pub(crate) fn slice(&self, body: Body) -> &'a [u8] {
        self.bytes.get(body.start..body.end).unwrap_or_default()
    }

    /// The next field, `None` at the end of the message.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field>, Malformed> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.position;
        let (number, wire_type) = self.tag()?;
        let content = self.content(number, wire_type, start, MAX_NESTING)?;
        Ok(Some(Field { start, number, content }))
    }

    /// The next field of a message that was checked when its request was parsed.
    #[inline]
    pub(crate) fn next_checked(&mut self) -> Option<Field> {
        self.next().ok().flatten()
    }

    /// The next field that has this number and a length prefix, of a message that was checked before.
    #[inline]
    pub(crate) fn next_body(&mut self, number: u32) -> Option<Body> {
        loop {
            let field = self.next_checked()?;
            if let Content::Bytes(body) = field.content
                && field.number == number
            {
                return Some(body);
            }
        }
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let start = self.position;
        let tag = self.varint()?;
        match u32::try_from(tag >> 3) {
            Ok(number @ 1..=MAX_FIELD_NUMBER) => Ok((number, (tag & 7) as u8)),
            _ => Err(Malformed { fault: Fault::FieldNumber, offset: start }),
        }
    }

    /// Reads what follows the tag at `start`; `depth` more groups may open inside.
    #[inline]
    fn content(&mut self, number: u32, wire_type: u8, start: usize, depth: usize) -> Result<Content, Malformed> {
        match wire_type {
            VARINT => self.varint().map(Content::Varint),
            FIXED64 => self.fixed64(start),
            LEN => {
                let len = self.varint()?;
                let body_start = self.position;
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                self.skip(len, start)?;
                Ok(Content::Bytes(Body { start: body_start, end: self.position }))
            }
            FIXED32 => self.skip(4, start).map(|()| Content::Fixed32),
            GROUP_START => self.skip_group(number, start, depth).map(|()| Content::Group),
            GROUP_END => Err(Malformed { fault: Fault::StrayGroupEnd, offset: start }),
            _ => Err(Malformed { fault: Fault::WireType, offset: start }),
        }
    }

    fn skip_group(&mut self, group: u32, start: usize, depth: usize) -> Result<(), Malformed> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Malformed { fault: Fault::TooDeep, offset: start });
        };
        loop {
            let field_start = self.position;
            let (number, wire_type) = self.tag()?;
            if wire_type == GROUP_END && number == group {
                return Ok(());
            }
            self.content(number, wire_type, field_start, depth)?;
        }
    }

    #[inline]
    fn fixed64(&mut self, start: usize) -> Result<Content, Malformed> {
        let bytes = self.bytes.get(self.position..).and_then(<[u8]>::first_chunk::<8>);
        let bytes = bytes.ok_or(Malformed { fault: Fault::Truncated, offset: start })?;
        self.position += 8;
        Ok(Content::Fixed64(u64::from_le_bytes(*bytes)))
    }

    #[inline]
    fn skip(&mut self, len: usize, start: usize) -> Result<(), Malformed> {
        if len > self.bytes.len() - self.position {
            return Err(Malformed { fault: Fault::Truncated, offset: start });
        }
        self.position += len;
        Ok(())
    }

    #[inline]
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

/// Field numbers have 29 bits.
const MAX_FIELD_NUMBER: u32 = (1 << 29) - 1;
