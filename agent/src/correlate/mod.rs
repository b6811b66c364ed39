//! Stage `correlate`.
