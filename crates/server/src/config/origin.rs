//! Where a value of the configuration came from, in the operator's words.

use std::fmt;
use std::path::PathBuf;

/// The layer that won. Displayed, it is the place to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Set nowhere.
    Default,
    /// A key of the configuration file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// With its table: `limits.max-body-bytes`.
        key: String,
        /// From 1.
        line: usize,
    },
    /// A variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, key, line } => write!(f, "`{key}` in {}, line {line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}
