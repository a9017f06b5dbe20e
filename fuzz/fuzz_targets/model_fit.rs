//! `cache_fit.json`, and the plans made with it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_cache::fuzz::model_fit(bytes));
