//! An accepted request as its client and its worker hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use super::{FinishedRequest, PlannedRequest, Preview, RequestFailure};

/// Where a request stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// One of its images was begun.
    pub started: bool,
    /// Place among the waiting requests of its worker, 1 is next; 0 once it was begun.
    pub queue_position: usize,
    /// Steps done, all images together.
    pub step: usize,
    /// Steps in all, all images together.
    pub steps: usize,
    /// Steps done that reused an earlier one.
    pub cached: usize,
}

/// Previews that wait for their taker; a further one is dropped.
const PREVIEWS_HELD: usize = 4;

/// An accepted request. Dropping the ticket cancels the request at the next step.
pub struct Ticket {
    progress: watch::Receiver<Progress>,
    previews: Option<mpsc::Receiver<Preview>>,
    result: oneshot::Receiver<Result<FinishedRequest, RequestFailure>>,
    _cancel: CancelOnDrop,
}

/// The worker's end of a ticket.
pub(crate) struct Outcome {
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) previews: Option<mpsc::Sender<Preview>>,
    result: oneshot::Sender<Result<FinishedRequest, RequestFailure>>,
    cancelled: Arc<AtomicBool>,
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both ends for a request.
pub(crate) fn ticket(request: &PlannedRequest) -> (Ticket, Outcome) {
    let steps = request.spec.steps * request.seeds.count();
    let (progress_sender, progress) = watch::channel(Progress { steps, ..Progress::default() });
    let (result_sender, result) = oneshot::channel();
    let (preview_sender, previews) = match request.previews.get() {
        0 => (None, None),
        _ => {
            let (sender, receiver) = mpsc::channel(PREVIEWS_HELD);
            (Some(sender), Some(receiver))
        }
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let ticket = Ticket { progress, previews, result, _cancel: CancelOnDrop(Arc::clone(&cancelled)) };
    (ticket, Outcome { progress: progress_sender, previews: preview_sender, result: result_sender, cancelled })
}

impl Ticket {
    /// Watches the request's progress.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The previews that the request asked for, once. The channel ends with the request; a preview
    /// that is made while too many wait is dropped.
    pub fn previews(&mut self) -> Option<mpsc::Receiver<Preview>> {
        self.previews.take()
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`RequestFailure`] if there are no images.
    pub async fn finished(mut self) -> Result<FinishedRequest, RequestFailure> {
        (&mut self.result).await.unwrap_or_else(|_| Err(worker_gone()))
    }

    /// Waits for the result on a thread outside any async runtime.
    ///
    /// # Errors
    /// [`RequestFailure`] if there are no images.
    pub fn wait(self) -> Result<FinishedRequest, RequestFailure> {
        let Self { result, _cancel, .. } = self;
        result.blocking_recv().unwrap_or_else(|_| Err(worker_gone()))
    }
}

fn worker_gone() -> RequestFailure {
    RequestFailure::Failed("the worker stopped before the request was done".to_owned())
}

impl Outcome {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Becomes true when the client leaves.
    pub(crate) fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether a preview that is made now has a taker who will have room for it.
    pub(crate) fn takes_previews(&self) -> bool {
        self.previews.as_ref().is_some_and(|sender| !sender.is_closed() && sender.capacity() > 0)
    }

    pub(crate) fn send(self, result: Result<FinishedRequest, RequestFailure>) {
        // Nobody listens any more if the client has gone.
        let _ = self.result.send(result);
    }
}
