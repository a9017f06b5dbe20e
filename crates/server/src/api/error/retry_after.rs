//! When a client should ask again: the `retry-after` of a 429 or 503.

use std::time::Duration;

use super::ApiError;

/// When a client should ask again while the model loads or the server shuts down.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(5);

impl ApiError {
    /// `None` where asking again is no use, or the client has to decide.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after }
            | Self::TooManyFailedKeys { retry_after }
            | Self::RateLimited { retry_after, .. }
            | Self::TooManyConcurrent { retry_after, .. }
            | Self::TooManyJobs { retry_after, .. } => Some(*retry_after),
            Self::Loading | Self::ShuttingDown | Self::WorkerStopped | Self::TimedOut(_) | Self::StorageStuck(_) => {
                Some(UNAVAILABLE_RETRY)
            }
            // It is in the client's own hands.
            Self::TooManyOpen { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
