//! Whether an HTTP/2 connection has anything to do. HTTP/1 connections are idle between two requests and hyper
//! knows how long; on an HTTP/2 connection requests come and go side by side, and hyper waits forever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The number of requests in progress on one connection.
#[derive(Clone)]
pub(super) struct Activity(Arc<watch::Sender<usize>>);

/// One request in progress, until its answer has been taken.
pub(super) struct InProgress(Activity);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(super) fn begin(&self) -> InProgress {
        self.0.send_modify(|requests| *requests += 1);
        InProgress(self.clone())
    }

    /// Returns once there has been no request for this long.
    pub(super) fn has_ceased(&self, idle: Duration) -> impl Future<Output = ()> + Send + use<> {
        let mut requests = self.0.subscribe();
        async move {
            loop {
                let is_idle = *requests.borrow_and_update() == 0;
                // A sender that was dropped means the same as silence.
                let changed = requests.changed();
                let has_changed = match is_idle {
                    true => timeout(idle, changed).await.is_ok_and(|changed| changed.is_ok()),
                    false => changed.await.is_ok(),
                };
                if !has_changed {
                    return;
                }
            }
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| *requests -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_from_its_last_answer_on() {
        let (activity, idle) = (Activity::new(), Duration::from_millis(1));
        let request = activity.begin();
        let mut ceased = std::pin::pin!(activity.has_ceased(idle));
        let mut is_still_there = async || timeout(10 * idle, &mut ceased).await.is_err();
        assert!(is_still_there().await, "a request may take its time");
        let other = activity.begin();
        drop(request);
        assert!(is_still_there().await, "and there may be others");
        drop(other);
        ceased.await;
    }
}
