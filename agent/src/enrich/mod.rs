//! Stage `enrich`.
