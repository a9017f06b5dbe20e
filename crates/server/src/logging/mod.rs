//! Log output: to standard error, as text or as one JSON object per line; and spans to a collector,
//! where this program was built with `otlp`.
//!
//! A command waits for whoever reads its lines, as programs do. A server does not: see [`line_writer`].

mod args;
mod cache_warnings;
mod line_writer;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
mod panics;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::error::ProgramError;
use line_writer::LineWriter;

pub(crate) use args::{LogArgs, LogFormat};
pub(crate) use cache_warnings::CacheWarnings;

/// What writes a server's lines: one, as there is one standard error.
static LINES: OnceLock<LineWriter> = OnceLock::new();

/// Held until the program ends, so that nothing gets lost.
#[derive(Debug, Default)]
pub(crate) struct Logging {
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::SpanExport>,
    /// After the spans, which may have something to say at their end.
    _lines: LastLines,
}

/// Waits for a server's last lines when dropped.
#[derive(Debug, Default)]
struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(lines) = LINES.get() {
            lines.finish();
        }
    }
}

/// Lines that a server could not write because nobody read them.
pub(crate) fn dropped_lines() -> u64 {
    LINES.get().map_or(0, LineWriter::dropped_lines)
}

/// Starts logging of a command; `default_filter` holds where neither a flag nor the environment says otherwise.
pub(crate) fn start(args: &LogArgs, default_filter: &str) -> Result<Logging, ProgramError> {
    // A second start (in tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(lines(args, default_filter, io::stderr)?).try_init();
    warn(args);
    Ok(Logging::default())
}

/// Starts logging of a server, with spans to a collector if there is one.
pub(crate) fn start_server(
    args: &LogArgs,
    default_filter: &str,
    otlp_endpoint: Option<&str>,
) -> Result<Logging, ProgramError> {
    let lines = lines(args, default_filter, line_writer()?.clone())?;
    let logging = init(lines, otlp_endpoint)?;
    panics::log();
    warn(args);
    Ok(logging)
}

#[cfg(feature = "otlp")]
fn init(lines: impl Layer<Registry> + Send + Sync, otlp_endpoint: Option<&str>) -> Result<Logging, ProgramError> {
    let registry = tracing_subscriber::registry().with(lines);
    let Some(endpoint) = otlp_endpoint else {
        let _ = registry.try_init();
        return Ok(Logging::default());
    };
    let (layer, spans) = otlp::start(endpoint).map_err(|error| ProgramError::setting("otlp-endpoint", error))?;
    let _ = registry.with(layer).try_init();
    Ok(Logging { _spans: Some(spans), ..Logging::default() })
}

/// This build sends no spans; that none are requested is checked with the other settings.
#[cfg(not(feature = "otlp"))]
fn init(lines: impl Layer<Registry> + Send + Sync, _: Option<&str>) -> Result<Logging, ProgramError> {
    let _ = tracing_subscriber::registry().with(lines).try_init();
    Ok(Logging::default())
}

fn line_writer() -> Result<&'static LineWriter, ProgramError> {
    if let Some(writer) = LINES.get() {
        return Ok(writer);
    }
    let started = LineWriter::start(io::stderr());
    let writer = started.map_err(|source| ProgramError::System { what: "cannot start the log's thread", source })?;
    Ok(LINES.get_or_init(|| writer))
}

/// What was noticed while there was no log.
fn warn(args: &LogArgs) {
    args.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn lines<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(
    args: &LogArgs,
    default_filter: &str,
    writer: W,
) -> Result<impl Layer<Registry> + Send + Sync + use<W>, ProgramError> {
    let filter = args.log_filter.as_deref().unwrap_or(default_filter);
    let filter: EnvFilter = filter
        .parse()
        .map_err(|error| ProgramError::setting("log-filter", format!("`{filter}` is not a filter: {error}")))?;
    let has_colors = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(has_colors);
    let lines = match args.log_format {
        LogFormat::Text => lines.boxed(),
        // The list of spans has the current one, too.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    Ok(lines.with_filter(filter))
}
