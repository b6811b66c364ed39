//! The OTLP messages of a trace request (opentelemetry-proto 1.10): which fields they have, and of which wire type.
//!
//! A request is checked whole before it is acknowledged: merged with others, one malformed attribute would make the
//! receiver upstream refuse them all.

use crate::error::{Fault, ParseError};
use crate::limits::MAX_NESTING;
use crate::wire::{Content, Field, Malformed, Reader};

/// Field numbers of the fields that are read or written by name.
pub(crate) mod number {
    pub(crate) const REQUEST_RESOURCE_SPANS: u32 = 1;
    pub(crate) const RESOURCE_SPANS_RESOURCE: u32 = 1;
    pub(crate) const RESOURCE_SPANS_SCOPE_SPANS: u32 = 2;
    pub(crate) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(crate) const SCOPE_SPANS_SCOPE: u32 = 1;
    pub(crate) const SCOPE_SPANS_SPANS: u32 = 2;
    pub(crate) const SCOPE_NAME: u32 = 1;
    pub(crate) const SCOPE_VERSION: u32 = 2;
    pub(crate) const SPAN_TRACE_ID: u32 = 1;
    pub(crate) const SPAN_SPAN_ID: u32 = 2;
    pub(crate) const SPAN_PARENT_SPAN_ID: u32 = 4;
    pub(crate) const SPAN_NAME: u32 = 5;
    pub(crate) const SPAN_KIND: u32 = 6;
    pub(crate) const SPAN_START_TIME: u32 = 7;
    pub(crate) const SPAN_END_TIME: u32 = 8;
    pub(crate) const SPAN_ATTRIBUTES: u32 = 9;
    pub(crate) const SPAN_EVENTS: u32 = 11;
    pub(crate) const SPAN_LINKS: u32 = 13;
    pub(crate) const SPAN_STATUS: u32 = 15;
    pub(crate) const EVENT_TIME: u32 = 1;
    pub(crate) const EVENT_NAME: u32 = 2;
    pub(crate) const EVENT_ATTRIBUTES: u32 = 3;
    pub(crate) const LINK_TRACE_ID: u32 = 1;
    pub(crate) const LINK_SPAN_ID: u32 = 2;
    pub(crate) const LINK_ATTRIBUTES: u32 = 4;
    pub(crate) const STATUS_MESSAGE: u32 = 2;
    pub(crate) const STATUS_CODE: u32 = 3;
    pub(crate) const KEY_VALUE_KEY: u32 = 1;
    pub(crate) const KEY_VALUE_VALUE: u32 = 2;
    pub(crate) const ANY_STRING: u32 = 1;
    pub(crate) const ANY_BOOL: u32 = 2;
    pub(crate) const ANY_INT: u32 = 3;
    pub(crate) const ANY_DOUBLE: u32 = 4;
    pub(crate) const ANY_ARRAY: u32 = 5;
    pub(crate) const ANY_KVLIST: u32 = 6;
    pub(crate) const ANY_BYTES: u32 = 7;
    pub(crate) const ANY_STRING_INDEX: u32 = 8;
}

/// A message type.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    /// By field number; the first entry stands for the number 0, which no field has.
    fields: &'static [Type],
}

#[derive(Debug, Clone, Copy)]
enum Type {
    Unknown,
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
    Message(&'static Message),
}

impl Message {
    /// Checks a whole message and all inside it. `depth`: how many messages it lies in.
    pub(crate) fn check(&self, mut reader: Reader<'_>, depth: usize) -> Result<(), ParseError> {
        while let Some(field) = self.next(&mut reader)? {
            self.check_field(&reader, &field, depth)?;
        }
        Ok(())
    }

    /// Checks one field of this message, which was read from `reader`.
    #[inline]
    pub(crate) fn check_field(&self, reader: &Reader<'_>, field: &Field, depth: usize) -> Result<(), ParseError> {
        let expected = self.fields.get(field.number as usize).unwrap_or(&Type::Unknown);
        match (expected, field.content) {
            (Type::Message(message), Content::Bytes(_)) if depth >= MAX_NESTING => {
                Err(ParseError { message: message.name, offset: field.start, fault: Fault::TooDeep })
            }
            (Type::Message(message), Content::Bytes(body)) => message.check(reader.nested(body), depth + 1),
            (Type::Unknown, _)
            | (Type::Varint, Content::Varint(_))
            | (Type::Fixed32, Content::Fixed32)
            | (Type::Fixed64, Content::Fixed64(_))
            | (Type::Bytes, Content::Bytes(_)) => Ok(()),
            _ => Err(ParseError { message: self.name, offset: field.start, fault: Fault::WireType }),
        }
    }

    /// The next field of a message of this type.
    #[inline]
    pub(crate) fn next(&self, reader: &mut Reader<'_>) -> Result<Option<Field>, ParseError> {
        reader.next().map_err(|Malformed { fault, offset }| ParseError { message: self.name, offset, fault })
    }
}

use Type::{Bytes, Fixed32, Fixed64, Unknown, Varint};

pub(crate) static REQUEST: Message =
    Message { name: "ExportTraceServiceRequest", fields: &[Unknown, Type::Message(&RESOURCE_SPANS)] };

pub(crate) static RESOURCE_SPANS: Message =
    Message { name: "ResourceSpans", fields: &[Unknown, Type::Message(&RESOURCE), Type::Message(&SCOPE_SPANS), Bytes] };

pub(crate) static RESOURCE: Message =
    Message { name: "Resource", fields: &[Unknown, Type::Message(&KEY_VALUE), Varint, Type::Message(&ENTITY_REF)] };

static ENTITY_REF: Message = Message { name: "EntityRef", fields: &[Unknown, Bytes, Bytes, Bytes, Bytes] };

pub(crate) static SCOPE_SPANS: Message =
    Message { name: "ScopeSpans", fields: &[Unknown, Type::Message(&SCOPE), Type::Message(&SPAN), Bytes] };

pub(crate) static SCOPE: Message =
    Message { name: "InstrumentationScope", fields: &[Unknown, Bytes, Bytes, Type::Message(&KEY_VALUE), Varint] };

pub(crate) static SPAN: Message = Message {
    name: "Span",
    fields: &[
        Unknown,
        Bytes,                     // trace_id
        Bytes,                     // span_id
        Bytes,                     // trace_state
        Bytes,                     // parent_span_id
        Bytes,                     // name
        Varint,                    // kind
        Fixed64,                   // start_time_unix_nano
        Fixed64,                   // end_time_unix_nano
        Type::Message(&KEY_VALUE), // attributes
        Varint,                    // dropped_attributes_count
        Type::Message(&EVENT),     // events
        Varint,                    // dropped_events_count
        Type::Message(&LINK),      // links
        Varint,                    // dropped_links_count
        Type::Message(&STATUS),    // status
        Fixed32,                   // flags
    ],
};

static EVENT: Message =
    Message { name: "Event", fields: &[Unknown, Fixed64, Bytes, Type::Message(&KEY_VALUE), Varint] };

static LINK: Message =
    Message { name: "Link", fields: &[Unknown, Bytes, Bytes, Bytes, Type::Message(&KEY_VALUE), Varint, Fixed32] };

static STATUS: Message = Message { name: "Status", fields: &[Unknown, Unknown, Bytes, Varint] };

static KEY_VALUE: Message = Message { name: "KeyValue", fields: &[Unknown, Bytes, Type::Message(&ANY_VALUE), Varint] };

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        Unknown,
        Bytes,                          // string_value
        Varint,                         // bool_value
        Varint,                         // int_value
        Fixed64,                        // double_value
        Type::Message(&ARRAY_VALUE),    // array_value
        Type::Message(&KEY_VALUE_LIST), // kvlist_value
        Bytes,                          // bytes_value
        Varint,                         // string_value_strindex
    ],
};

static ARRAY_VALUE: Message = Message { name: "ArrayValue", fields: &[Unknown, Type::Message(&ANY_VALUE)] };

static KEY_VALUE_LIST: Message = Message { name: "KeyValueList", fields: &[Unknown, Type::Message(&KEY_VALUE)] };
