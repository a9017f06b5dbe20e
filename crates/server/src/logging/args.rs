//! Flags about logging.

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogArgs {
    /// How log lines look; they go to standard error
    #[arg(long, env = "AFTERIMAGE_LOG_FORMAT", hide_env_values = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What is logged, in the syntax of RUST_LOG, such as `info` or `warn,afterimage_runner=debug`
    /// [default: info for serve, else warn]
    #[arg(long, env = "AFTERIMAGE_LOG_FILTER", hide_env_values = true, value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
    /// What was noticed before there was a log.
    #[arg(skip)]
    pub(crate) warnings: Vec<String>,
}
