//! Moves the times of an encoded `ExportTraceServiceRequest`. They are fixed64 fields, so every byte stays where it is,
//! those of fields that nobody here knows too.

use anyhow::{Context as _, Result, bail};

/// Field numbers of opentelemetry-proto's trace.proto and trace_service.proto.
const RESOURCE_SPANS: u64 = 1; // ExportTraceServiceRequest
const SCOPE_SPANS: u64 = 2; // ResourceSpans
const SPANS: u64 = 2; // ScopeSpans
const SPAN_START: u64 = 7;
const SPAN_END: u64 = 8;
const SPAN_EVENTS: u64 = 11;
const EVENT_TIME: u64 = 1;

/// What a request holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) spans: u64,
    /// Latest end of a span as it was, Unix nanoseconds.
    pub(super) newest_end_ns: u64,
}

/// Replaces every time that is set (start and end of spans, events) by `map` of it.
///
/// # Errors
/// When the bytes are no protobuf message.
pub(super) fn shift_times(request: &mut [u8], map: &dyn Fn(u64) -> u64) -> Result<Contents> {
    let mut contents = Contents::default();
    each_field(request, &mut |number, value| match (number, value) {
        (RESOURCE_SPANS, Value::Bytes(resource)) => each_field(resource, &mut |number, value| match (number, value) {
            (SCOPE_SPANS, Value::Bytes(scope)) => each_field(scope, &mut |number, value| match (number, value) {
                (SPANS, Value::Bytes(span)) => {
                    contents.spans += 1;
                    let end_ns = shift_span(span, map)?;
                    contents.newest_end_ns = contents.newest_end_ns.max(end_ns);
                    Ok(())
                }
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    Ok(contents)
}

/// Returns the span's end as it was.
fn shift_span(span: &mut [u8], map: &dyn Fn(u64) -> u64) -> Result<u64> {
    let mut end_ns = 0;
    each_field(span, &mut |number, value| {
        match (number, value) {
            (SPAN_START, Value::Fixed64(time)) => shift(time, map),
            (SPAN_END, Value::Fixed64(time)) => {
                end_ns = u64::from_le_bytes(*time);
                shift(time, map);
            }
            (SPAN_EVENTS, Value::Bytes(event)) => each_field(event, &mut |number, value| {
                if let (EVENT_TIME, Value::Fixed64(time)) = (number, value) {
                    shift(time, map);
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(end_ns)
}

fn shift(time: &mut [u8; 8], map: &dyn Fn(u64) -> u64) {
    let time_ns = u64::from_le_bytes(*time);
    if time_ns != 0 {
        *time = map(time_ns).to_le_bytes();
    }
}

/// A field's value, as far as anything here looks at it.
#[derive(Debug)]
enum Value<'a> {
    Fixed64(&'a mut [u8; 8]),
    Bytes(&'a mut [u8]),
    Other,
}

fn each_field(mut message: &mut [u8], visit: &mut dyn FnMut(u64, Value<'_>) -> Result<()>) -> Result<()> {
    while !message.is_empty() {
        let (tag, rest) = varint(message)?;
        let (value, rest) = match tag & 7 {
            0 => (Value::Other, varint(rest)?.1),
            1 => {
                let (fixed, rest) = rest.split_first_chunk_mut().context("a fixed64 is cut off")?;
                (Value::Fixed64(fixed), rest)
            }
            2 => {
                let (length, rest) = varint(rest)?;
                let length = usize::try_from(length)?;
                let (bytes, rest) = rest.split_at_mut_checked(length).context("a field is cut off")?;
                (Value::Bytes(bytes), rest)
            }
            5 => (Value::Other, rest.split_at_mut_checked(4).context("a fixed32 is cut off")?.1),
            other => bail!("no protobuf wire type: {other}"),
        };
        visit(tag >> 3, value)?;
        message = rest;
    }
    Ok(())
}

fn varint(bytes: &mut [u8]) -> Result<(u64, &mut [u8])> {
    let mut value = 0;
    for index in 0..bytes.len().min(10) {
        value |= u64::from(bytes[index] & 0x7f) << (7 * index);
        if bytes[index] < 0x80 {
            return Ok((value, &mut bytes[index + 1..]));
        }
    }
    bail!("a varint is cut off")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message as _;

    use super::*;

    fn request(start: u64, end: u64, event: u64) -> ExportTraceServiceRequest {
        let event = Event { time_unix_nano: event, name: "message".to_owned(), ..Default::default() };
        let span = Span {
            trace_id: vec![1; 16],
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            events: vec![event],
            ..Default::default()
        };
        let unended = Span { start_time_unix_nano: start, ..Default::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span, unended], ..Default::default() }];
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
    }

    #[test]
    fn every_time_is_moved_and_nothing_else() {
        let mut bytes = request(1000, 3000, 2000).encode_to_vec();
        bytes.extend([0xf8, 0x07, 0x05, 0xfd, 0x07, 1, 2, 3, 4]); // unknown fields: 127 as a varint and as a fixed32
        let tail = bytes[bytes.len() - 9..].to_vec();
        let contents = shift_times(&mut bytes, &|ns| ns / 2).unwrap();
        assert_eq!(contents, Contents { spans: 2, newest_end_ns: 3000 });
        let mut expected = request(500, 1500, 1000).encode_to_vec();
        expected.extend(tail);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_request_that_is_cut_off_is_refused() {
        let whole = request(1000, 3000, 2000).encode_to_vec();
        for length in 1..whole.len() {
            assert!(shift_times(&mut whole[..length].to_vec(), &|ns| ns).is_err(), "{length} bytes");
        }
    }
}
