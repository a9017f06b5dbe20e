//! A wish to stop, from another thread.

use std::sync::Arc;

use tokio::sync::watch;

/// Ends a study at its next denoising step. Clones are the same wish.
#[derive(Debug, Clone)]
pub struct Cancellation(Arc<watch::Sender<bool>>);

impl Default for Cancellation {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Cancellation {
    /// From now on, for good.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked for.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked for.
    pub(crate) async fn cancelled(&self) {
        // The sender is `self`'s own, so waiting ends with the wish alone.
        let _ = self.0.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}
