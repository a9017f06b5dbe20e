//! The tasks of HTTP/2: one for each stream, which ends if its client opens no window for the answer.
//!
//! Such a client may read everything else on its connection, which may carry the requests of others, as that of a proxy
//! does. So only the stream is given up: dropping its task resets it.

use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;

use super::patience::Patience;

tokio::task_local! {
    static PATIENCE: Arc<Patience>;
}

/// Runs the tasks of HTTP/2 connections.
#[derive(Clone)]
pub(super) struct StreamTasks {
    pub(super) write_timeout: Duration,
}

/// That of the stream whose task asks.
pub(super) fn patience() -> Arc<Patience> {
    PATIENCE.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(Patience::new()))
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for StreamTasks {
    fn execute(&self, task: F) {
        let (patience, write_timeout) = (Arc::new(Patience::new()), self.write_timeout);
        tokio::spawn(PATIENCE.scope(Arc::clone(&patience), async move {
            tokio::select! {
                _ = task => {}
                cut = patience.runs_out(write_timeout) => tracing::debug!(%cut, "a stream is given up"),
            }
        }));
    }
}
