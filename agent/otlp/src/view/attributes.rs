//! Reads attributes (`KeyValue`, `AnyValue`).

use super::text;
use crate::schema::number;
use crate::wire::{Body, Content, Reader};

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
    /// Field number of the attributes.
    attributes: u32,
    /// Where further messages of the same kind may follow, and their field number.
    messages: Option<(Reader<'a>, u32)>,
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
            if key_of(attribute) == key.as_bytes() {
                return Some(value_of(attribute));
            }
        }
    }

    /// The next `KeyValue`.
    fn next_attribute(&mut self) -> Option<Reader<'a>> {
        loop {
            if let Some(body) = self.fields.next_body(self.attributes) {
                return Some(self.fields.nested(body));
            }
            let (messages, message) = self.messages.as_mut()?;
            let body = messages.next_body(*message)?;
            self.fields = messages.nested(body);
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = self.next_attribute()?;
        Some((text(key_of(attribute)), value_of(attribute)))
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
fn key_of(mut attribute: Reader<'_>) -> &[u8] {
    let mut key: &[u8] = &[];
    while let Some(body) = attribute.next_body(number::KEY_VALUE_KEY) {
        key = attribute.slice(body);
    }
    key
}

/// The value of a `KeyValue`: of its `AnyValue`s, the last member of the oneof that was set.
fn value_of(mut attribute: Reader<'_>) -> Value<'_> {
    let mut value = Value::Other(&[]);
    while let Some(body) = attribute.next_body(number::KEY_VALUE_VALUE) {
        let mut members = attribute.nested(body);
        while let Some(member) = members.next_checked() {
            value = match (member.number, member.content) {
                (number::ANY_STRING, Content::Bytes(string)) => Value::Str(text(attribute.slice(string))),
                (number::ANY_BOOL, Content::Varint(bool)) => Value::Bool(bool != 0),
                (number::ANY_INT, Content::Varint(int)) => Value::Int(int.cast_signed()),
                (number::ANY_DOUBLE, Content::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
                (number::ANY_BYTES, Content::Bytes(bytes)) => Value::Bytes(attribute.slice(bytes)),
                (number::ANY_ARRAY | number::ANY_KVLIST | number::ANY_STRING_INDEX, _) => {
                    Value::Other(attribute.slice(body))
                }
                _ => value,
            };
        }
    }
    value
}
