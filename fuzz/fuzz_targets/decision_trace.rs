//! Decisions over whole runs, for every backend.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_cache::fuzz::decision_trace(bytes));
