//! `cache_profile.json`, and what is chosen from it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_study::fuzz::cache_profile(bytes));
