//! `tokenizer.json`, as far as tokens.

#![no_main]

// Panics of the libraries are caught by the code under test, and only those that get out are findings: the hook of
// libfuzzer-sys would end the process at the first.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| afterimage_diffusion::fuzz::tokenizer(bytes)
);
