//! Log output: to standard error, as text or as one JSON object per line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{CliError, LogArgs, LogFormat};

/// Starts logging; `default_filter` holds where neither a flag nor the environment says otherwise.
pub(crate) fn start(args: &LogArgs, default_filter: &str) -> Result<(), CliError> {
    let filter = args.log_filter.as_deref().unwrap_or(default_filter);
    let filter: EnvFilter =
        filter.parse().map_err(|error| CliError::setting("log-filter", format!("`{filter}` is no filter: {error}")))?;
    let has_colors = std::io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(has_colors);
    // A second start (in tests) keeps the first subscriber.
    let _ = match args.log_format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    Ok(())
}
