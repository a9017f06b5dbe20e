//! `cache_config` of a request, as far as the plan.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_cache::fuzz::cache_config(bytes));
