//! The `afterimage` program: an HTTP image server for diffusion transformers, and its command line.
//!
//! [`cli`] reads flags and environment, [`server`] owns the life of a server from binding its port to
//! the last answer, [`connections`] its connections, [`api`] is the HTTP side of one request, [`metrics`] what is counted. Pictures are
//! made by `afterimage-runner`; nothing here knows a tensor.

mod api;
mod cache_defaults;
mod cache_warnings;
mod cli;
mod connections;
mod image_file;
mod image_store;
mod logging;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod quality;
mod server;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&error);
            error.exit_code()
        }
    }
}
