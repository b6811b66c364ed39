//! Reads the events and links of a span.

use super::{Attributes, id_of, text};
use crate::schema::number;
use crate::wire::{Content, Reader};

/// Something that happened during a span.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What happened.
    pub name: &'a str,
    /// When, Unix nanoseconds; 0 if absent.
    pub time_unix_nano: u64,
    fields: Reader<'a>,
}

/// A reference to another span.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Zero if absent or not 16 bytes long.
    pub trace_id: [u8; 16],
    /// Zero if absent or not 8 bytes long.
    pub span_id: [u8; 8],
    fields: Reader<'a>,
}

/// The events of a span.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    span: Reader<'a>,
}

/// The links of a span.
#[derive(Debug, Clone)]
pub struct Links<'a> {
    span: Reader<'a>,
}

// === impl Event ===

impl<'a> Event<'a> {
    fn new(fields: Reader<'a>) -> Self {
        let mut event = Self { name: "", time_unix_nano: 0, fields };
        let mut fields = fields;
        while let Some(field) = fields.next_checked() {
            match (field.number, field.content) {
                (number::EVENT_NAME, Content::Bytes(body)) => event.name = text(fields.slice(body)),
                (number::EVENT_TIME, Content::Fixed64(time)) => event.time_unix_nano = time,
                _ => {}
            }
        }
        event
    }

    /// The event's attributes, in the order of the bytes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.fields, number::EVENT_ATTRIBUTES)
    }
}

// === impl Link ===

impl<'a> Link<'a> {
    fn new(fields: Reader<'a>) -> Self {
        let mut link = Self { trace_id: [0; 16], span_id: [0; 8], fields };
        let mut fields = fields;
        while let Some(field) = fields.next_checked() {
            match (field.number, field.content) {
                (number::LINK_TRACE_ID, Content::Bytes(body)) => link.trace_id = id_of(fields.slice(body)),
                (number::LINK_SPAN_ID, Content::Bytes(body)) => link.span_id = id_of(fields.slice(body)),
                _ => {}
            }
        }
        link
    }

    /// The link's attributes, in the order of the bytes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.fields, number::LINK_ATTRIBUTES)
    }
}

// === impl Events, Links ===

impl<'a> Events<'a> {
    pub(super) fn new(span: Reader<'a>) -> Self {
        Self { span }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let body = self.span.next_body(number::SPAN_EVENTS)?;
        Some(Event::new(self.span.nested(body)))
    }
}

impl<'a> Links<'a> {
    pub(super) fn new(span: Reader<'a>) -> Self {
        Self { span }
    }
}

impl<'a> Iterator for Links<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
        let body = self.span.next_body(number::SPAN_LINKS)?;
        Some(Link::new(self.span.nested(body)))
    }
}
