//! safetensors files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_checkpoint::fuzz::safetensors(bytes));
