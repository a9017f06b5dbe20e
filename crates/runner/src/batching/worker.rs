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
use super::sample_queue::SampleQueue;
use super::statistics::{Counters, EngineStatistics, count};
use super::step_loop::StepLoop;
use super::step_model::StepModel;
use super::work_estimate::{BucketEstimate, Work};
use super::work_ledger::{Totals, Use, WorkLedger};
use super::work_loop::{Message, WorkLoop};
use crate::error::RunnerError;
use crate::request::ImageSpec;

/// How often a worker that died is started again.
const RESTARTS: usize = 1;

/// A worker as seen from outside.
pub(super) struct Worker {
    shared: Arc<WorkerShared>,
    is_alive: Arc<AtomicBool>,
    /// `None` once the worker drains.
    queue: Mutex<Option<SyncSender<Message>>>,
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
    /// Its device, counted from 0.
    pub(super) device: usize,
    pub(super) max_batch_rows: usize,
    /// Requests that may be on their way to the loop.
    pub(super) max_requests_on_their_way: usize,
    /// Made before the worker counts as started.
    pub(super) warm_up: Vec<Arc<ImageSpec>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Worker {
    /// Starts the thread and waits until it is warm.
    pub(super) fn start<M: StepModel>(
        model: Arc<M>,
        samples: Arc<SampleQueue<M::Image>>,
        options: WorkerOptions,
    ) -> Result<Self, RunnerError> {
        let shared = Arc::new(WorkerShared {
            ledger: Arc::new(WorkLedger::new(Arc::clone(samples.requests()))),
            counters: Counters::new(options.max_batch_rows),
            is_being_woken: AtomicBool::new(false),
            device: options.device,
        });
        let parts = LoopParts {
            model,
            max_batch_rows: options.max_batch_rows,
            clock: options.clock,
            shared: Arc::clone(&shared),
        };
        // One place more, for the message that wakes it: requests lose none to samples.
        let (queue, messages) = sync_channel(options.max_requests_on_their_way.saturating_add(1));
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
                    run(&parts, &samples, &messages, &is_alive);
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
        let (message, is_full) = match queue.try_send(Message::Request(request)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) => (message, true),
            Err(TrySendError::Disconnected(message)) => (message, false),
        };
        match message {
            Message::Request(request) => Err(NotSent { request, is_full }),
            Message::Wake => Ok(()),
        }
    }

    /// Has it look for samples, if it does nothing else. One such message is on its way at most.
    pub(super) fn wake(&self) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        let is_being_woken = &self.shared.is_being_woken;
        // A worker with a full queue is not asleep.
        if !is_being_woken.swap(true, Ordering::SeqCst) && queue.try_send(Message::Wake).is_err() {
            is_being_woken.store(false, Ordering::SeqCst);
        }
    }

    /// Its device, counted from 0.
    pub(super) fn device(&self) -> usize {
        self.shared.device
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

fn run<M: StepModel>(
    parts: &LoopParts<M>,
    samples: &Arc<SampleQueue<M::Image>>,
    messages: &Receiver<Message>,
    is_alive: &AtomicBool,
) {
    for life in 0..=RESTARTS {
        let mut work = WorkLoop::new(parts.clone(), Arc::clone(samples), messages);
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work.run())) else { return };
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
