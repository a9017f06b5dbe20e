//! The `afterimage` program: an HTTP image server for diffusion transformers, and its command line.
//!
//! [`cli`] has the flags, [`config`] puts file, environment and flags together, [`server`] owns the life
//! of a server from binding its port to the last answer, [`connections`] its connections, [`request`] reads what
//! is asked for, [`api`] is the HTTP side of one request, [`playground`] the page for people, [`metrics`] what is
//! counted, [`sampling`] measures what caches cost, [`logging`] what is logged. Pictures are made by `afterimage-runner`; nothing here knows a tensor.

mod api;
mod auto_cache;
mod backtrace;
mod build_info;
#[cfg(test)]
mod cache_reference;
mod cli;
mod clock;
mod config;
mod connections;
mod error;
#[cfg(test)]
mod finished_request;
mod image_file;
mod image_store;
mod logging;
mod metrics;
mod model_source;
mod page_file;
mod playground;
mod request;
mod sampling;
mod secret;
mod server;
mod terminal;

use std::process::ExitCode;

use afterimage_runner::cpu::keep_freed_memory;

fn main() -> ExitCode {
    keep_freed_memory();
    let arguments: Vec<_> = std::env::args_os().collect();
    match cli::Cli::read(&arguments).and_then(cli::Cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
