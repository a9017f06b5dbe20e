//! Configurations of components, and what is built from them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_diffusion::fuzz::model_config(bytes));
