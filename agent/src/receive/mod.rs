//! Stage `receive`.
