//! Reads attributes (`KeyValue`, `AnyValue`).

use std::ops::Range;

use super::text;
use crate::schema::{UsualValue, tag, usual_attribute, usual_key};
use crate::wire::{Body, Reader};

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A string, as far as it is valid UTF-8.
    Str(&'a str),
    /// A signed integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A floating-point number.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list, a map, an index into a string table or nothing at all: the encoded `AnyValue`.
    Other(&'a [u8]),
}

/// The attributes of a span, a resource, an event or a link: keys with their values.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// Inside the message whose attributes are read.
    fields: Reader<'a>,
    /// Tag of the attributes.
    attributes: u32,
    /// Where further messages of the same kind may follow, and their tag.
    messages: Option<(Reader<'a>, u32)>,
}

/// The keys of a span's attributes; reads no values.
#[derive(Debug, Clone)]
pub struct AttributeKeys<'a> {
    fields: Reader<'a>,
}

// === impl AttributeKeys ===

impl<'a> AttributeKeys<'a> {
    pub(super) fn new(fields: Reader<'a>) -> Self {
        Self { fields }
    }
}

impl<'a> Iterator for AttributeKeys<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.fields;
        if let Some(key) = self.fields.next_short(tag::SPAN_ATTRIBUTES).and_then(usual_key) {
            return Some(key);
        }
        self.fields = start;
        let field = self.fields.next_tagged(tag::SPAN_ATTRIBUTES)?;
        Some(key_of(self.fields.nested(field.body)))
    }
}

// === impl Attributes ===

impl<'a> Attributes<'a> {
    /// The attributes of one message.
    pub(super) fn new(fields: Reader<'a>, attributes: u32) -> Self {
        Self { fields, attributes, messages: None }
    }

    /// The attributes of every field `message` that `messages` has.
    pub(super) fn of_each(messages: Reader<'a>, message: u32, attributes: u32) -> Self {
        let nothing = messages.nested(Body { start: 0, end: 0 });
        Self { fields: nothing, attributes, messages: Some((messages, message)) }
    }

    /// The value of the first attribute with this key; decodes no other value.
    pub(super) fn find_key(mut self, key: &str) -> Option<Value<'a>> {
        loop {
            let attribute = self.next_attribute()?;
            match usual_attribute(attribute.rest()) {
                Some((usual_key, value)) if usual_key == key.as_bytes() => return Some(value_of_usual(value)),
                None if key_of(attribute) == key.as_bytes() => return Some(value_of(attribute)),
                _ => {}
            }
        }
    }

    /// The bytes of the first attribute with this key, tag and length prefix included; of one message.
    pub(super) fn find_field(mut self, key: &str) -> Option<Range<usize>> {
        loop {
            let field = self.fields.next_tagged(self.attributes)?;
            if key_of(self.fields.nested(field.body)) == key.as_bytes() {
                return Some(field.start..field.body.end);
            }
        }
    }

    /// The next `KeyValue`.
    #[inline]
    fn next_attribute(&mut self) -> Option<Reader<'a>> {
        loop {
            if let Some(field) = self.fields.next_tagged(self.attributes) {
                return Some(self.fields.nested(field.body));
            }
            let (messages, message) = self.messages.as_mut()?;
            let field = messages.next_tagged(*message)?;
            self.fields = messages.nested(field.body);
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let attribute = self.next_attribute()?;
        Some(match usual_attribute(attribute.rest()) {
            Some((key, value)) => (text(key), value_of_usual(value)),
            None => (text(key_of(attribute)), value_of(attribute)),
        })
    }
}

impl std::iter::FusedIterator for Attributes<'_> {}

// === impl Value ===

impl<'a> Value<'a> {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::Str(value) => Some(value),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match *self {
            Self::Int(value) => Some(value),
            _ => None,
        }
    }
}

/// The key of a `KeyValue`: the last one given.
#[cold]
fn key_of(mut attribute: Reader<'_>) -> &[u8] {
    let mut key: &[u8] = &[];
    while let Some(field) = attribute.next_tagged(tag::KEY_VALUE_KEY) {
        key = attribute.slice(field.body);
    }
    key
}

#[inline]
fn value_of_usual(value: UsualValue<'_>) -> Value<'_> {
    match value {
        UsualValue::Str(string) => Value::Str(text(string)),
        UsualValue::Bool(bool) => Value::Bool(bool),
        UsualValue::Int(int) => Value::Int(i64::from(int)),
    }
}

/// The value of a `KeyValue`: of its `AnyValue`s, the last member of the oneof that was set.
#[cold]
fn value_of(mut attribute: Reader<'_>) -> Value<'_> {
    let mut value = Value::Other(&[]);
    while let Some(field) = attribute.next_tagged(tag::KEY_VALUE_VALUE) {
        value = last_member(attribute.nested(field.body)).unwrap_or(value);
    }
    value
}

/// The value of an `AnyValue`: the last member of the oneof that was set.
fn last_member(any_value: Reader<'_>) -> Option<Value<'_>> {
    let mut members = any_value;
    let mut value = None;
    while let Some(member) = members.next_checked() {
        value = Some(match member.tag {
            tag::ANY_STRING => Value::Str(text(members.slice(member.body))),
            tag::ANY_BOOL => Value::Bool(member.value != 0),
            tag::ANY_INT => Value::Int(member.value.cast_signed()),
            tag::ANY_DOUBLE => Value::Double(f64::from_bits(member.value)),
            tag::ANY_BYTES => Value::Bytes(members.slice(member.body)),
            tag::ANY_ARRAY | tag::ANY_KVLIST | tag::ANY_STRING_INDEX => Value::Other(any_value.rest()),
            _ => continue,
        });
    }
    value
}
