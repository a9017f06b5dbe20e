//! Bodies of requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_fuzz::request_body(bytes));
