//! End to end: the built program, started on port 0 with the model inside it, spoken to over HTTP.
//!
//! Most tests share one server ([`server::shared`]); those that read counters or stop a server start their own.
//! Nothing here asserts on wall-clock time: deadlines only keep a hanging server from hanging the tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured is worth seeing under --nocapture")]

mod access;
mod auto_cache;
mod bad_requests;
mod bench;
mod bodies;
mod cache;
mod cancellation;
mod client_text;
mod command_line;
mod concurrency;
mod configuration;
mod conformance;
mod deaf_clients;
mod endpoints;
mod generations;
mod health;
mod http;
mod http2;
mod http_load;
mod image_files;
mod jobs;
mod labels;
mod lifecycle;
mod limits;
mod log_lines;
mod memory;
mod metrics_load;
mod metrics_page;
mod mixed_requests;
#[cfg(feature = "otlp")]
mod otlp;
mod picture;
mod prompts;
mod quality_samples;
mod random;
mod random_bodies;
mod root_path;
mod rude_clients;
mod server;
mod sharing;
mod soak;
mod streaming;
mod sweeps;
mod text_encoder_memory;
mod text_to_image;
mod tune;
mod whole_files;
