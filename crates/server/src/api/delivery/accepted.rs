//! An accepted request as the server sees it; the engine knows it by its ticket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterimage_runner::{RequestFailure, Ticket};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::api::access::Admitted;
use crate::api::answer::output::Output;
use crate::api::error::ApiError;
use crate::api::state::AppState;
use crate::metrics::InFlight;

/// A request that the engine has accepted. Dropping it cancels the request.
pub(in crate::api) struct Accepted {
    pub(in crate::api) state: Arc<AppState>,
    pub(in crate::api) ticket: Ticket,
    pub(in crate::api) arrived: Instant,
    /// Until when its client may take the answer.
    pub(in crate::api) deadline: Option<Deadline>,
    pub(in crate::api) output: Arc<Output>,
    pub(in crate::api) guards: Guards,
}

/// When the time of a request is over, its delivery included.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Deadline {
    pub(in crate::api) at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// That of a request that is accepted now.
    pub(in crate::api) fn of_timeout(timeout: Option<Duration>) -> Option<Self> {
        // One that is further away than clocks reach is none.
        timeout.and_then(|timeout| Some(Self { at: Instant::now().checked_add(timeout)?, timeout }))
    }

    pub(in crate::api) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    pub(in crate::api) fn failure(&self) -> RequestFailure {
        RequestFailure::TimedOut { timeout: self.timeout }
    }

    pub(in crate::api) fn error(&self) -> ApiError {
        self.failure().into()
    }
}

/// Held until the answer is delivered; for a job, until that has ended.
pub(in crate::api) struct Guards {
    /// A server that is shutting down waits for it.
    pub(in crate::api) unanswered: TaskTrackerToken,
    pub(in crate::api) in_flight: InFlight,
    /// The client's place among its own requests.
    pub(in crate::api) admitted: Admitted,
}
