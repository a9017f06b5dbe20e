//! An accepted request as the server sees it; the engine knows it by its ticket.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::Ticket;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::api::access::Admitted;
use crate::api::answer::output::Output;
use crate::api::state::AppState;
use crate::metrics::InFlight;

/// A request that the engine has accepted. Dropping it cancels the request.
pub(in crate::api) struct Accepted {
    pub(in crate::api) state: Arc<AppState>,
    pub(in crate::api) ticket: Ticket,
    pub(in crate::api) arrived: Instant,
    pub(in crate::api) output: Arc<Output>,
    pub(in crate::api) guards: Guards,
}

/// Held until the answer is made.
pub(in crate::api) struct Guards {
    /// A server that is shutting down waits for it.
    pub(in crate::api) unanswered: TaskTrackerToken,
    pub(in crate::api) in_flight: InFlight,
    /// The client's place among its own requests.
    pub(in crate::api) admitted: Admitted,
}
