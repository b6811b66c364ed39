//! See `spanlet_fuzz_checks::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spanlet_fuzz_checks::record(input));
