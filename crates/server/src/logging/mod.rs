//! Log output: to standard error, as text or as one JSON object per line; and spans to a collector,
//! where this program was built with `otlp`.

mod args;
mod cache_warnings;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::error::ProgramError;

pub(crate) use args::{LogArgs, LogFormat};
pub(crate) use cache_warnings::CacheWarnings;

/// Held until the program ends, so that nothing gets lost.
#[derive(Debug, Default)]
pub(crate) struct Logging {
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::SpanExport>,
}

/// Starts logging; `default_filter` holds where neither a flag nor the environment says otherwise.
pub(crate) fn start(args: &LogArgs, default_filter: &str) -> Result<Logging, ProgramError> {
    // A second start (in tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(lines(args, default_filter)?).try_init();
    warn(args);
    Ok(Logging::default())
}

/// The same, with spans to a collector if there is one.
#[cfg(feature = "otlp")]
pub(crate) fn start_with_spans(
    args: &LogArgs,
    default_filter: &str,
    otlp_endpoint: Option<&str>,
) -> Result<Logging, ProgramError> {
    let Some(endpoint) = otlp_endpoint else { return start(args, default_filter) };
    let (layer, spans) = otlp::start(endpoint).map_err(|error| ProgramError::setting("otlp-endpoint", error))?;
    let _ = tracing_subscriber::registry().with(lines(args, default_filter)?).with(layer).try_init();
    warn(args);
    Ok(Logging { _spans: Some(spans) })
}

/// This build sends no spans; that none are requested is checked with the other settings.
#[cfg(not(feature = "otlp"))]
pub(crate) fn start_with_spans(
    args: &LogArgs,
    default_filter: &str,
    _otlp_endpoint: Option<&str>,
) -> Result<Logging, ProgramError> {
    start(args, default_filter)
}

/// What was noticed while there was no log.
fn warn(args: &LogArgs) {
    args.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn lines(args: &LogArgs, default_filter: &str) -> Result<impl Layer<Registry> + use<>, ProgramError> {
    let filter = args.log_filter.as_deref().unwrap_or(default_filter);
    let filter: EnvFilter = filter
        .parse()
        .map_err(|error| ProgramError::setting("log-filter", format!("`{filter}` is not a filter: {error}")))?;
    let has_colors = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(has_colors);
    let lines = match args.log_format {
        LogFormat::Text => lines.boxed(),
        // The list of spans has the current one, too.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    Ok(lines.with_filter(filter))
}
