//! How downloads are watched.

use std::sync::{Mutex, PoisonError};

/// Smaller files are fetched without progress within the file.
const LEAST_LOGGED_BYTES: u64 = 64 << 20;

/// Receives the progress of downloads.
pub trait FetchProgress: Send + Sync {
    /// `done_bytes` of `total_bytes` of a file are there: when its download begins or is taken up again,
    /// and whenever some have arrived. Files come one after the other.
    fn fetched(&self, file: &str, done_bytes: u64, total_bytes: u64);
}

/// A log line for every file, and for every tenth of a large one.
#[derive(Debug, Default)]
pub struct LoggedProgress {
    /// The last file, and how many tenths of it were logged.
    logged: Mutex<(String, u64)>,
}

impl FetchProgress for LoggedProgress {
    fn fetched(&self, file: &str, done_bytes: u64, total_bytes: u64) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let tenths = (10 * done_bytes).checked_div(total_bytes).unwrap_or(10);
        if logged.0 != file {
            *logged = (file.to_owned(), tenths);
            tracing::info!(file, total_bytes, "fetching");
        } else if tenths > logged.1 && total_bytes >= LEAST_LOGGED_BYTES {
            logged.1 = tenths;
            tracing::info!(file, done_bytes, total_bytes, "fetching");
        }
    }
}
