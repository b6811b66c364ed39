//! See `spanlet_fuzz_checks::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spanlet_fuzz_checks::connection(input));
