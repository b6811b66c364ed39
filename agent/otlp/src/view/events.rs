//! Reads the events and links of a span.

use super::{Attributes, id_of, text};
use crate::schema::tag;
use crate::wire::Reader;

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
            match field.tag {
                tag::EVENT_NAME => event.name = text(fields.slice(field.body)),
                tag::EVENT_TIME => event.time_unix_nano = field.value,
                _ => {}
            }
        }
        event
    }

    /// The event's attributes, in the order of the bytes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.fields, tag::EVENT_ATTRIBUTES)
    }
}

// === impl Link ===

impl<'a> Link<'a> {
    fn new(fields: Reader<'a>) -> Self {
        let mut link = Self { trace_id: [0; 16], span_id: [0; 8], fields };
        let mut fields = fields;
        while let Some(field) = fields.next_checked() {
            match field.tag {
                tag::LINK_TRACE_ID => link.trace_id = id_of(fields.slice(field.body)),
                tag::LINK_SPAN_ID => link.span_id = id_of(fields.slice(field.body)),
                _ => {}
            }
        }
        link
    }

    /// The link's attributes, in the order of the bytes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.fields, tag::LINK_ATTRIBUTES)
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
        let field = self.span.next_tagged(tag::SPAN_EVENTS)?;
        Some(Event::new(self.span.nested(field.body)))
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
        let field = self.span.next_tagged(tag::SPAN_LINKS)?;
        Some(Link::new(self.span.nested(field.body)))
    }
}
