//! Why the settings cannot be read.

/// What one of the layers says cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// clap's own: what it cannot parse, and also help and version.
    #[error("{0}")]
    CommandLine(clap::Error),
    /// A file that cannot be read, or a value that is refused; with the place to look at.
    #[error("{0}")]
    Value(String),
}
