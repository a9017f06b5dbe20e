//! The program's error: why a command ends without success, and with which exit code.

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitCode;

use afterimage_runner::{CACHE_PROFILE_FILE, RequestFailure, RunnerError, SubmitError};
use afterimage_study::profile::ProfileError;

use crate::config::{ConfigError, Origin, Settings};
use crate::terminal;

/// One line for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// clap's own: what it cannot parse, and also help and version.
    #[error("{0}")]
    CommandLine(clap::Error),
    /// A setting that can be parsed and cannot be used.
    #[error("{origin}: {message}")]
    Setting {
        /// The flag without its dashes.
        flag: Cow<'static, str>,
        /// Where the value came from; the flag itself until [`Self::found_in`] knows better.
        origin: Origin,
        /// What was found and what would be right.
        message: String,
    },
    /// Flags or request are at fault.
    #[error("{0}")]
    Usage(String),
    /// The model cannot be loaded or written.
    #[error("{0}")]
    Model(#[source] RunnerError),
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As asked for.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// What was measured of the model's caches cannot be used.
    #[error("{model}: {CACHE_PROFILE_FILE}: {source}")]
    Profile {
        /// The model's id.
        model: String,
        #[source]
        source: ProfileError,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The engine did not accept the request.
    #[error("{0}")]
    Submit(#[from] SubmitError),
    /// The request failed.
    #[error("{0}")]
    Job(#[from] RequestFailure),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// A study ended early; what was done is kept.
    #[error("{reason}; {kept}")]
    Unfinished {
        /// Why.
        reason: String,
        /// What is left.
        kept: String,
    },
    /// A search has found nothing.
    #[error("{0}")]
    NotFound(String),
    /// A server is not well, or does not answer.
    #[error("{0}")]
    Unhealthy(String),
    /// A task ended in a panic, which is a fault of this program.
    #[error("internal error: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

impl ProgramError {
    pub(crate) fn setting(flag: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let flag = flag.into();
        Self::Setting { origin: Origin::Flag(format!("--{flag}")), flag, message: message.into() }
    }

    /// Names the key of the file or the variable that the setting at fault came from.
    pub(crate) fn found_in(self, settings: &Settings) -> Self {
        match self {
            Self::Setting { flag, message, .. } => Self::Setting { origin: settings.origin(&flag), flag, message },
            other => other,
        }
    }

    /// Reports the error at the terminal, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // A closed output is no reason for another exit code.
                let _ = error.print();
                u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
            }
            Self::Usage(_) | Self::Setting { .. } => {
                terminal::error(self);
                ExitCode::from(2)
            }
            _ => {
                terminal::error(self);
                ExitCode::FAILURE
            }
        }
    }
}

impl From<RunnerError> for ProgramError {
    fn from(error: RunnerError) -> Self {
        match error {
            // Fields are named as flags are, but for their dashes.
            RunnerError::LoadOption { option, message } | RunnerError::Memory { option, message } => {
                Self::setting(option.replace('_', "-"), message)
            }
            other => Self::Model(other),
        }
    }
}

impl From<ConfigError> for ProgramError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::CommandLine(error) => Self::CommandLine(error),
            ConfigError::Value(message) => Self::Usage(message),
        }
    }
}
