//! Why a command ends without success, and with which exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use afterimage_runner::{JobError, RunnerError, SubmitError};

/// One line for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Flags or request are at fault.
    #[error("{0}")]
    Usage(String),
    /// The model cannot be loaded or written.
    #[error("{0}")]
    Model(#[from] RunnerError),
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As asked for.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The engine did not take the job.
    #[error("{0}")]
    Submit(#[from] SubmitError),
    /// The job failed.
    #[error("{0}")]
    Job(#[from] JobError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// A task ended in a panic, which is a fault of this program.
    #[error("internal error: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

impl CliError {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
