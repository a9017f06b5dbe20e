//! How long the server waits for a client that takes nothing of its answer.
//!
//! What writes says when it has to wait and when it goes on; a [watcher](Patience::runs_out) beside it looks now and then
//! whether one wait has lasted too long. So a write costs no timer of its own, and what hyper writes on its
//! own account is watched, too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The watcher looks this often within the time that a wait may last ...
const LOOKS: u32 = 4;
/// ... but no more often than this, and no less often, because a deadline may be set meanwhile.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Since when, and until when, somebody waits for one client. Times are milliseconds after `begun`, [`NEVER`] for none.
pub(super) struct Patience {
    begun: Instant,
    waiting_since: AtomicU64,
    deadline: AtomicU64,
    has_run_out: AtomicBool,
}

const NEVER: u64 = u64::MAX;

/// Why a client is no longer waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    #[error("the client took nothing of its answer for too long (--write-timeout)")]
    Stalled,
    #[error("the client had not taken its answer when the time of its request was over (--request-timeout)")]
    Late,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            waiting_since: AtomicU64::new(NEVER),
            deadline: AtomicU64::new(NEVER),
            has_run_out: AtomicBool::new(false),
        }
    }

    /// Something waits to be taken, from now on unless it did already.
    pub(super) fn waits(&self) {
        if self.waiting_since.load(Relaxed) == NEVER {
            self.waiting_since.store(self.now(), Relaxed);
        }
    }

    /// Something was taken.
    pub(super) fn goes_on(&self) {
        self.waiting_since.store(NEVER, Relaxed);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.load(Relaxed) != NEVER
    }

    /// The answer under way has until then.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        self.deadline.store(milliseconds(deadline.saturating_duration_since(self.begun)), Relaxed);
    }

    /// No answer is under way.
    pub(super) fn clear_deadline(&self) {
        self.deadline.store(NEVER, Relaxed);
    }

    /// Whether [`Self::runs_out`] has returned.
    pub(super) fn has_run_out(&self) -> bool {
        self.has_run_out.load(Relaxed)
    }

    /// Returns when a wait has lasted for `timeout`, or the deadline is over.
    pub(super) async fn runs_out(&self, timeout: Duration) -> Cut {
        let pause = (timeout / LOOKS).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let timeout = milliseconds(timeout);
        loop {
            let now = self.now();
            let (since, deadline) = (self.waiting_since.load(Relaxed), self.deadline.load(Relaxed));
            let cut = match (now >= deadline, now.saturating_sub(since) >= timeout.max(1)) {
                (true, _) => Some(Cut::Late),
                (false, true) => Some(Cut::Stalled),
                (false, false) => None,
            };
            if let Some(cut) = cut {
                self.has_run_out.store(true, Relaxed);
                return cut;
            }
            sleep(pause.min(Duration::from_millis((deadline - now).max(1)))).await;
        }
    }

    fn now(&self) -> u64 {
        milliseconds(self.begun.elapsed())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER).min(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn only_a_wait_runs_out() {
        let patience = Patience::new();
        let mut runs_out = std::pin::pin!(patience.runs_out(SHORT));
        assert!(timeout(3 * SHORT, &mut runs_out).await.is_err(), "nothing waits");
        patience.waits();
        patience.goes_on();
        assert!(timeout(3 * SHORT, &mut runs_out).await.is_err(), "something was taken");
        patience.waits();
        assert_eq!(runs_out.await, Cut::Stalled);
        assert!(patience.has_run_out());
    }

    #[tokio::test]
    async fn an_answer_has_until_its_deadline() {
        let patience = Patience::new();
        patience.set_deadline(Instant::now() + SHORT);
        assert_eq!(patience.runs_out(SHORT).await, Cut::Late);
        let patience = Patience::new();
        patience.set_deadline(Instant::now() + SHORT);
        patience.clear_deadline();
        assert!(timeout(3 * SHORT, patience.runs_out(SHORT)).await.is_err());
    }
}
