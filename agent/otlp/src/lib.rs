//! OTLP trace requests as bytes.
pub struct TraceRequest;
pub struct Additions;
impl TraceRequest { pub fn span_count(&self) -> usize { 0 } }
impl Additions { pub fn new(_: &TraceRequest) -> Self { Self } }
impl std::fmt::Debug for TraceRequest { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
impl std::fmt::Debug for Additions { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
