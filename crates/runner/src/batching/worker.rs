//! One thread with its own step loop and the bounded channel that feeds it.
//!
//! Hanging up the channel tells the thread to end once everything accepted is finished. A panic that
//! gets past the loop's own guards takes the loop's requests with it; the worker starts afresh once,
//! and the second time it is dead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use afterimage_checkpoint::guard::panic_text;

use super::clock::Clock;
use super::loop_parts::{LoopParts, WorkerShared};
use super::running_request::AcceptedRequest;
use super::statistics::{Counters, EngineStatistics, count};
use super::step_loop::StepLoop;
use super::step_model::StepModel;
use super::work_estimate::{BucketEstimate, Work};
use super::work_ledger::{Totals, Use, WorkLedger};
use crate::error::RunnerError;
use crate::request::ImageSpec;

/// How often a worker that died is started again.
const RESTARTS: usize = 1;

/// A worker as seen from outside.
pub(super) struct Worker {
    shared: Arc<WorkerShared>,
    is_alive: Arc<AtomicBool>,
    /// `None` once the worker drains.
    queue: Mutex<Option<SyncSender<Box<AcceptedRequest>>>>,
    thread: JoinHandle<()>,
}

/// A request that a worker did not take.
pub(super) struct NotSent {
    pub(super) request: Box<AcceptedRequest>,
    /// It has too many on their way; otherwise it is gone or drains.
    pub(super) is_full: bool,
}

/// What a worker is started with.
pub(super) struct WorkerOptions {
    pub(super) name: String,
    pub(super) max_batch_rows: usize,
    /// Requests that may be on their way to the loop.
    pub(super) max_requests_on_their_way: usize,
    /// Made before the worker counts as started.
    pub(super) warm_up: Vec<Arc<ImageSpec>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Worker {
    /// Starts the thread and waits until it is warm.
    pub(super) fn start<M: StepModel>(model: Arc<M>, options: WorkerOptions) -> Result<Self, RunnerError> {
        let shared = Arc::new(WorkerShared {
            ledger: Arc::new(WorkLedger::default()),
            counters: Counters::new(options.max_batch_rows),
        });
        let parts = LoopParts {
            model,
            max_batch_rows: options.max_batch_rows,
            clock: options.clock,
            shared: Arc::clone(&shared),
        };
        let (queue, requests) = sync_channel(options.max_requests_on_their_way);
        let (warm_sender, warm) = sync_channel(1);
        let is_alive = Arc::new(AtomicBool::new(true));
        let thread = {
            let is_alive = Arc::clone(&is_alive);
            move || {
                let warmed_up = StepLoop::new(parts.clone()).warm_up(&options.warm_up);
                let is_warm = warmed_up.is_ok();
                // The starter waits for this.
                let _ = warm_sender.send(warmed_up);
                if is_warm {
                    run(&parts, &requests, &is_alive);
                }
            }
        };
        let thread = std::thread::Builder::new().name(options.name).spawn(thread).map_err(RunnerError::Thread)?;
        warm.recv().unwrap_or_else(|_| Err(RunnerError::WarmUp))?;
        Ok(Self { shared, is_alive, queue: Mutex::new(Some(queue)), thread })
    }

    /// Whether it takes requests; a worker that has died does not.
    pub(super) fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Acquire)
    }

    /// Whether its thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Hands a request over; back if the worker is gone, drains, or has too many on their way.
    pub(super) fn send(&self, request: Box<AcceptedRequest>) -> Result<(), NotSent> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return Err(NotSent { request, is_full: false }) };
        queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) => NotSent { request, is_full: true },
            TrySendError::Disconnected(request) => NotSent { request, is_full: false },
        })
    }

    /// Ends once everything accepted is finished.
    pub(super) fn drain(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn ledger(&self) -> &Arc<WorkLedger> {
        &self.shared.ledger
    }

    pub(super) fn totals(&self) -> Totals {
        self.shared.ledger.totals()
    }

    pub(super) fn uses(&self) -> Vec<Use> {
        self.shared.ledger.uses()
    }

    pub(super) fn estimate(&self, work: &Work) -> Option<f64> {
        self.shared.ledger.estimate(work)
    }

    pub(super) fn buckets(&self) -> Vec<BucketEstimate> {
        self.shared.ledger.buckets()
    }

    pub(super) fn add_statistics(&self, statistics: &mut EngineStatistics) {
        self.shared.counters.add_to(statistics);
    }
}

fn run<M: StepModel>(parts: &LoopParts<M>, requests: &Receiver<Box<AcceptedRequest>>, is_alive: &AtomicBool) {
    for life in 0..=RESTARTS {
        let mut steps = StepLoop::new(parts.clone());
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(&mut steps, requests))) else { return };
        let reason = panic_text(panic.as_ref());
        if life < RESTARTS {
            count(&parts.shared.counters.restarts);
            tracing::error!(reason, "a worker died with its requests and starts again");
        } else {
            // Before its requests learn of it, so that readiness never lags.
            is_alive.store(false, Ordering::Release);
            tracing::error!(reason, "a worker died again and stays dead");
        }
    }
}

/// Serves until the channel is hung up and everything is finished.
fn serve<M: StepModel>(steps: &mut StepLoop<M>, requests: &Receiver<Box<AcceptedRequest>>) {
    loop {
        if steps.is_idle() {
            let Ok(request) = requests.recv() else { return };
            steps.submit(*request);
        }
        requests.try_iter().for_each(|request| steps.submit(*request));
        steps.iterate();
    }
}
