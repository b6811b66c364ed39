//! The OTLP messages of a trace request (opentelemetry-proto 1.10): which fields they have, and of which wire type.
//!
//! A request is checked whole before it is acknowledged: merged with others, one malformed attribute would make the
//! receiver upstream refuse them all.

use crate::error::{Fault, ParseError};
use crate::limits::MAX_NESTING;
use crate::wire::{self, Field, Malformed, Reader};

/// Tags (field number and wire type) of the fields that are read or written by name.
pub(crate) mod tag {
    use crate::wire::{FIXED64, LEN, VARINT};

    pub(crate) const REQUEST_RESOURCE_SPANS: u32 = len(1);
    pub(crate) const RESOURCE_SPANS_RESOURCE: u32 = len(1);
    pub(crate) const RESOURCE_SPANS_SCOPE_SPANS: u32 = len(2);
    pub(crate) const RESOURCE_ATTRIBUTES: u32 = len(1);
    pub(crate) const SCOPE_SPANS_SCOPE: u32 = len(1);
    pub(crate) const SCOPE_SPANS_SPANS: u32 = len(2);
    pub(crate) const SCOPE_NAME: u32 = len(1);
    pub(crate) const SCOPE_VERSION: u32 = len(2);
    pub(crate) const SPAN_TRACE_ID: u32 = len(1);
    pub(crate) const SPAN_SPAN_ID: u32 = len(2);
    pub(crate) const SPAN_PARENT_SPAN_ID: u32 = len(4);
    pub(crate) const SPAN_NAME: u32 = len(5);
    pub(crate) const SPAN_KIND: u32 = varint(6);
    pub(crate) const SPAN_START_TIME: u32 = fixed64(7);
    pub(crate) const SPAN_END_TIME: u32 = fixed64(8);
    pub(crate) const SPAN_ATTRIBUTES: u32 = len(9);
    pub(crate) const SPAN_EVENTS: u32 = len(11);
    pub(crate) const SPAN_LINKS: u32 = len(13);
    pub(crate) const SPAN_STATUS: u32 = len(15);
    pub(crate) const EVENT_TIME: u32 = fixed64(1);
    pub(crate) const EVENT_NAME: u32 = len(2);
    pub(crate) const EVENT_ATTRIBUTES: u32 = len(3);
    pub(crate) const LINK_TRACE_ID: u32 = len(1);
    pub(crate) const LINK_SPAN_ID: u32 = len(2);
    pub(crate) const LINK_ATTRIBUTES: u32 = len(4);
    pub(crate) const STATUS_MESSAGE: u32 = len(2);
    pub(crate) const STATUS_CODE: u32 = varint(3);
    pub(crate) const KEY_VALUE_KEY: u32 = len(1);
    pub(crate) const KEY_VALUE_VALUE: u32 = len(2);
    pub(crate) const ANY_STRING: u32 = len(1);
    pub(crate) const ANY_BOOL: u32 = varint(2);
    pub(crate) const ANY_INT: u32 = varint(3);
    pub(crate) const ANY_DOUBLE: u32 = fixed64(4);
    pub(crate) const ANY_ARRAY: u32 = len(5);
    pub(crate) const ANY_KVLIST: u32 = len(6);
    pub(crate) const ANY_BYTES: u32 = len(7);
    pub(crate) const ANY_STRING_INDEX: u32 = varint(8);

    const fn len(number: u32) -> u32 {
        number << 3 | LEN as u32
    }

    const fn varint(number: u32) -> u32 {
        number << 3 | VARINT as u32
    }

    const fn fixed64(number: u32) -> u32 {
        number << 3 | FIXED64 as u32
    }
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
    /// A number, string or bytes, of this wire type.
    Scalar(u8),
    Message(&'static Message),
    /// A `KeyValue`: what requests hold most of.
    Attribute,
}

impl Message {
    /// Checks a whole message and all inside it. `depth`: how many messages it lies in.
    pub(crate) fn check(&self, mut reader: Reader<'_>, depth: usize) -> Result<(), ParseError> {
        while let Some(field) = self.next(&mut reader)? {
            self.check_field(&reader, &field, depth)?;
        }
        Ok(())
    }

    /// Checks one field of this message, which was read from `reader` and lies in `depth` messages.
    #[inline]
    pub(crate) fn check_field(&self, reader: &Reader<'_>, field: &Field, depth: usize) -> Result<(), ParseError> {
        let wire_type = wire::wire_type(field.tag);
        match self.fields.get((field.tag >> 3) as usize).unwrap_or(&Type::Unknown) {
            Type::Unknown => Ok(()),
            Type::Scalar(expected) if *expected == wire_type => Ok(()),
            Type::Attribute if wire_type == wire::LEN => check_attribute(reader, field, depth),
            Type::Message(message) if wire_type == wire::LEN => message.check_nested(reader, field, depth),
            _ => Err(ParseError { message: self.name, offset: field.start, fault: Fault::WireType }),
        }
    }

    /// Checks the message of this type that a field holds, of a message that lies in `depth` messages.
    pub(crate) fn check_nested(&self, reader: &Reader<'_>, field: &Field, depth: usize) -> Result<(), ParseError> {
        if depth >= MAX_NESTING {
            return Err(ParseError { message: self.name, offset: field.start, fault: Fault::TooDeep });
        }
        self.check(reader.nested(field.body), depth + 1)
    }

    /// The next field of a message of this type.
    #[inline]
    pub(crate) fn next(&self, reader: &mut Reader<'_>) -> Result<Option<Field>, ParseError> {
        reader.next().map_err(|Malformed { fault, offset }| ParseError { message: self.name, offset, fault })
    }
}

/// Checks a field that holds a `KeyValue`, of a message that lies in `depth` messages.
#[inline]
pub(crate) fn check_attribute(reader: &Reader<'_>, field: &Field, depth: usize) -> Result<(), ParseError> {
    if depth < USUAL_NESTING && usual_attribute(reader.slice(field.body)).is_some() {
        return Ok(());
    }
    KEY_VALUE.check_nested(reader, field, depth)
}

use Type::{Attribute, Unknown};

const VARINT: Type = Type::Scalar(wire::VARINT);
const FIXED32: Type = Type::Scalar(wire::FIXED32);
const FIXED64: Type = Type::Scalar(wire::FIXED64);
const BYTES: Type = Type::Scalar(wire::LEN);

pub(crate) static REQUEST: Message =
    Message { name: "ExportTraceServiceRequest", fields: &[Unknown, Type::Message(&RESOURCE_SPANS)] };

pub(crate) static RESOURCE_SPANS: Message =
    Message { name: "ResourceSpans", fields: &[Unknown, Type::Message(&RESOURCE), Type::Message(&SCOPE_SPANS), BYTES] };

pub(crate) static RESOURCE: Message =
    Message { name: "Resource", fields: &[Unknown, Attribute, VARINT, Type::Message(&ENTITY_REF)] };

static ENTITY_REF: Message = Message { name: "EntityRef", fields: &[Unknown, BYTES, BYTES, BYTES, BYTES] };

pub(crate) static SCOPE_SPANS: Message =
    Message { name: "ScopeSpans", fields: &[Unknown, Type::Message(&SCOPE), Type::Message(&SPAN), BYTES] };

pub(crate) static SCOPE: Message =
    Message { name: "InstrumentationScope", fields: &[Unknown, BYTES, BYTES, Attribute, VARINT] };

pub(crate) static SPAN: Message = Message {
    name: "Span",
    fields: &[
        Unknown,
        BYTES,                  // trace_id
        BYTES,                  // span_id
        BYTES,                  // trace_state
        BYTES,                  // parent_span_id
        BYTES,                  // name
        VARINT,                 // kind
        FIXED64,                // start_time_unix_nano
        FIXED64,                // end_time_unix_nano
        Attribute,              // attributes
        VARINT,                 // dropped_attributes_count
        Type::Message(&EVENT),  // events
        VARINT,                 // dropped_events_count
        Type::Message(&LINK),   // links
        VARINT,                 // dropped_links_count
        Type::Message(&STATUS), // status
        FIXED32,                // flags
    ],
};

static EVENT: Message = Message { name: "Event", fields: &[Unknown, FIXED64, BYTES, Attribute, VARINT] };

static LINK: Message = Message { name: "Link", fields: &[Unknown, BYTES, BYTES, BYTES, Attribute, VARINT, FIXED32] };

pub(crate) static STATUS: Message = Message { name: "Status", fields: &[Unknown, Unknown, BYTES, VARINT] };

static KEY_VALUE: Message = Message { name: "KeyValue", fields: &[Unknown, BYTES, Type::Message(&ANY_VALUE), VARINT] };

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        Unknown,
        BYTES,                          // string_value
        VARINT,                         // bool_value
        VARINT,                         // int_value
        FIXED64,                        // double_value
        Type::Message(&ARRAY_VALUE),    // array_value
        Type::Message(&KEY_VALUE_LIST), // kvlist_value
        BYTES,                          // bytes_value
        VARINT,                         // string_value_strindex
    ],
};

static ARRAY_VALUE: Message = Message { name: "ArrayValue", fields: &[Unknown, Type::Message(&ANY_VALUE)] };

static KEY_VALUE_LIST: Message = Message { name: "KeyValueList", fields: &[Unknown, Attribute] };

/// The key and the value of a `KeyValue` that is written as all SDKs write most of them, and is therefore well-formed: the
/// key, then a string, a truth value or a small integer, all lengths below 128. Others take the long way.
#[inline]
pub(crate) fn usual_attribute(bytes: &[u8]) -> Option<(&[u8], UsualValue<'_>)> {
    let [KEY_TAG, key_len @ ..0x80, rest @ ..] = bytes else { return None };
    let (key, [VALUE_TAG, value_len @ ..0x80, value @ ..]) = rest.split_at_checked(usize::from(*key_len))? else {
        return None;
    };
    if usize::from(*value_len) != value.len() {
        return None;
    }
    match value {
        [STRING_TAG, len @ ..0x80, string @ ..] if usize::from(*len) == string.len() => {
            Some((key, UsualValue::Str(string)))
        }
        [BOOL_TAG, bool @ ..0x80] => Some((key, UsualValue::Bool(*bool != 0))),
        [INT_TAG, int @ ..0x80] => Some((key, UsualValue::Int(*int))),
        _ => None,
    }
}

/// The key of a `KeyValue` that is written as usual: the key, then the value and nothing else.
#[inline]
pub(crate) fn usual_key(bytes: &[u8]) -> Option<&[u8]> {
    let [KEY_TAG, key_len @ ..0x80, rest @ ..] = bytes else { return None };
    match rest.split_at_checked(usize::from(*key_len))? {
        (key, [VALUE_TAG, value_len @ ..0x80, value @ ..]) if usize::from(*value_len) == value.len() => Some(key),
        _ => None,
    }
}

/// The value of a [`usual_attribute`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum UsualValue<'a> {
    Str(&'a [u8]),
    Bool(bool),
    Int(u8),
}

const KEY_TAG: u8 = tag::KEY_VALUE_KEY as u8;
const VALUE_TAG: u8 = tag::KEY_VALUE_VALUE as u8;
const STRING_TAG: u8 = tag::ANY_STRING as u8;
const BOOL_TAG: u8 = tag::ANY_BOOL as u8;
const INT_TAG: u8 = tag::ANY_INT as u8;

/// Attributes below this depth have room for their `AnyValue` under [`MAX_NESTING`].
const USUAL_NESTING: usize = MAX_NESTING - 1;
