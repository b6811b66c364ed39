//! A second reader and writer of the wire format, for tests: whole requests as trees, made with prost's primitives. It says
//! byte for byte what editing must give, unknown fields included, which prost's own types forget.

use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A nested message.
    Message(u32, Message),
    /// The bytes of any other field, its tag included.
    Leaf(u32, Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub nodes: Vec<Node>,
}

/// The message types that edits go through, and those in which unknown fields matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    ResourceSpans,
    Resource,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    Status,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

impl Kind {
    fn child(self, field: u32) -> Option<Self> {
        Some(match (self, field) {
            (Self::Request, 1) => Self::ResourceSpans,
            (Self::ResourceSpans, 1) => Self::Resource,
            (Self::ResourceSpans, 2) => Self::ScopeSpans,
            (Self::ScopeSpans, 1) => Self::Scope,
            (Self::ScopeSpans, 2) => Self::Span,
            (Self::Resource, 1)
            | (Self::Scope, 3)
            | (Self::Span, 9)
            | (Self::Event, 3)
            | (Self::Link, 4)
            | (Self::KeyValueList, 1) => Self::KeyValue,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::Span, 15) => Self::Status,
            (Self::KeyValue, 2) | (Self::ArrayValue, 1) => Self::AnyValue,
            (Self::AnyValue, 5) => Self::ArrayValue,
            (Self::AnyValue, 6) => Self::KeyValueList,
            _ => return None,
        })
    }
}

impl Message {
    /// Reads a well-formed message.
    pub fn parse(kind: Kind, mut bytes: &[u8]) -> Self {
        let mut nodes = Vec::new();
        while !bytes.is_empty() {
            let start = bytes;
            let (number, wire_type) = decode_key(&mut bytes).expect("a key");
            match kind.child(number) {
                Some(child) if wire_type == WireType::LengthDelimited => {
                    let len = decode_varint(&mut bytes).expect("a length") as usize;
                    nodes.push(Node::Message(number, Self::parse(child, &bytes[..len])));
                    bytes = &bytes[len..];
                }
                _ => {
                    skip_field(wire_type, number, &mut bytes, DecodeContext::default()).expect("a field");
                    nodes.push(Node::Leaf(number, start[..start.len() - bytes.len()].to_vec()));
                }
            }
        }
        Self { kind, nodes }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.encode_padded(0)
    }

    /// Encodes with `padding` bytes more in each length prefix than it needs, as some encoders do that leave room for it.
    pub fn encode_padded(&self, padding: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for node in &self.nodes {
            match node {
                Node::Leaf(_, bytes) => out.extend_from_slice(bytes),
                Node::Message(number, message) => {
                    let body = message.encode_padded(padding);
                    encode_key(*number, WireType::LengthDelimited, &mut out);
                    encode_varint(body.len() as u64, &mut out);
                    for _ in 0..padding {
                        *out.last_mut().expect("a varint has bytes") |= 0x80;
                        out.push(0);
                    }
                    out.extend_from_slice(&body);
                }
            }
        }
        out
    }

    /// Every message in the tree, this one first.
    pub fn for_each(&mut self, change: &mut impl FnMut(&mut Self)) {
        change(self);
        for node in &mut self.nodes {
            if let Node::Message(_, message) = node {
                message.for_each(change);
            }
        }
    }

    /// The nested messages of a kind, in order.
    pub fn children_mut(&mut self, kind: Kind) -> impl Iterator<Item = &mut Self> {
        self.nodes.iter_mut().filter_map(move |node| match node {
            Node::Message(_, message) if message.kind == kind => Some(message),
            _ => None,
        })
    }

    /// The spans of a request, in order.
    pub fn spans_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        self.children_mut(Kind::ResourceSpans)
            .flat_map(|resource| resource.children_mut(Kind::ScopeSpans))
            .flat_map(|scope| scope.children_mut(Kind::Span))
    }

    /// Each span of a request with what stands around it: the other fields of the request, of its `ResourceSpans` and of
    /// its `ScopeSpans`.
    pub fn spans_in_context(&self) -> Vec<[Vec<Node>; 4]> {
        let mut spans = Vec::new();
        for resource in self.of_kind(Kind::ResourceSpans) {
            for scope in resource.of_kind(Kind::ScopeSpans) {
                for span in scope.of_kind(Kind::Span) {
                    spans.push([
                        self.but(Kind::ResourceSpans),
                        resource.but(Kind::ScopeSpans),
                        scope.but(Kind::Span),
                        span.nodes.clone(),
                    ]);
                }
            }
        }
        spans
    }

    /// The request with only these of its spans, and without the messages that then have none.
    pub fn with_spans(&self, spans: Range<usize>) -> Self {
        let mut request = self.clone();
        let mut index = 0;
        request.retain(Kind::ResourceSpans, &mut |resource| {
            resource.retain(Kind::ScopeSpans, &mut |scope| {
                scope.retain(Kind::Span, &mut |_| {
                    index += 1;
                    spans.contains(&(index - 1))
                })
            })
        });
        request
    }

    /// Removes the nested messages of a kind that are not to be kept; tells whether any was kept.
    fn retain(&mut self, kind: Kind, keep: &mut impl FnMut(&mut Self) -> bool) -> bool {
        let mut kept = false;
        self.nodes.retain_mut(|node| match node {
            Node::Message(_, message) if message.kind == kind => {
                let keep = keep(message);
                kept |= keep;
                keep
            }
            _ => true,
        });
        kept
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Self> {
        self.nodes.iter().filter_map(move |node| match node {
            Node::Message(_, message) if message.kind == kind => Some(message),
            _ => None,
        })
    }

    fn but(&self, kind: Kind) -> Vec<Node> {
        let others =
            self.nodes.iter().filter(|node| !matches!(node, Node::Message(_, message) if message.kind == kind));
        others.cloned().collect()
    }
}
