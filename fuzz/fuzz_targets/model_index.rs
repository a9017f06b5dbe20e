//! `model_index.json`, and its labels.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_diffusion::fuzz::model_index(bytes));
