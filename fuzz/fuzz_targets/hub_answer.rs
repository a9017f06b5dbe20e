//! What a hub says of a repository.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| afterimage_checkpoint::fuzz::hub_answer(bytes));
