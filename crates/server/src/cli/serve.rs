//! `afterimage serve`: its flags.

use std::num::NonZeroUsize;
use std::time::Duration;

use afterimage_runner::EngineOptions;

use super::cache::CacheArgs;
use super::error::CliError;
use super::log::LogArgs;
use super::model::ModelArgs;
use crate::api::{ApiSettings, UnknownFields};
use crate::logging;
use crate::server::{self, ServerOptions};

/// Longest prompt unless told otherwise.
pub(super) const DEFAULT_MAX_PROMPT_CHARS: usize = 4096;

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; 0.0.0.0 is every IPv4 address of the machine
    #[arg(long, env = "AFTERIMAGE_HOST", hide_env_values = true, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one. The line `listening on http://HOST:PORT` on standard output
    /// tells which
    #[arg(long, env = "AFTERIMAGE_PORT", hide_env_values = true, default_value_t = 8080)]
    port: u16,
    /// The id that clients know the model by [default: folder name or hub id]
    #[arg(long, env = "AFTERIMAGE_SERVED_MODEL_NAME", hide_env_values = true, value_name = "NAME")]
    served_model_name: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// What a request may ask for, and how much may wait.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Longest prompt, in characters
    #[arg(long, env = "AFTERIMAGE_MAX_PROMPT_CHARS", hide_env_values = true, value_name = "CHARS",
        default_value_t = DEFAULT_MAX_PROMPT_CHARS)]
    max_prompt_chars: usize,
    /// Largest request body, in bytes
    #[arg(long, env = "AFTERIMAGE_MAX_BODY_BYTES", hide_env_values = true, value_name = "BYTES",
        default_value_t = 1024 * 1024)]
    max_body_bytes: usize,
    /// Requests that may wait for the worker; one more is answered 429
    #[arg(
        long,
        env = "AFTERIMAGE_MAX_QUEUED_REQUESTS",
        hide_env_values = true,
        value_name = "REQUESTS",
        default_value = "64"
    )]
    max_queued_requests: NonZeroUsize,
    /// Memory for the cache state of all running images, in bytes; an image that finds none left is
    /// computed without a cache
    #[arg(long, env = "AFTERIMAGE_CACHE_MEMORY_BYTES", hide_env_values = true, value_name = "BYTES",
        default_value_t = EngineOptions::default().cache_memory_bytes)]
    cache_memory_bytes: usize,
    /// What happens to a request with a field nobody knows
    #[arg(long, env = "AFTERIMAGE_UNKNOWN_FIELDS", hide_env_values = true, value_enum, default_value = "reject")]
    unknown_fields: UnknownFields,
    /// Seconds that accepted requests are given to finish once the server is told to end
    #[arg(
        long,
        env = "AFTERIMAGE_DRAIN_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS",
        default_value_t = 30
    )]
    drain_timeout: u64,
}

impl ServeArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let cache = self.cache.defaults()?;
        logging::start(&self.log, "info")?;
        server::run(ServerOptions {
            host: self.host,
            port: self.port,
            model: self.model,
            engine: EngineOptions {
                max_queued_requests: self.limits.max_queued_requests.get(),
                cache_memory_bytes: self.limits.cache_memory_bytes,
                ..EngineOptions::default()
            },
            drain_timeout: Duration::from_secs(self.limits.drain_timeout),
            api: ApiSettings {
                served_model_name: self.served_model_name,
                max_prompt_chars: self.limits.max_prompt_chars,
                max_body_bytes: self.limits.max_body_bytes,
                unknown_fields: self.limits.unknown_fields,
                cache,
            },
        })
    }
}
