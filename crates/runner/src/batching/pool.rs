//! The workers of an engine, and the door in front of them.
//!
//! Work is weighed in estimated seconds. A request goes to the worker with the least of it, or to the next
//! one if that worker turns out to be dead, and is refused where that worker already has too much, or where
//! too many requests wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use super::request_spans::RequestSpans;
use super::running_request::AcceptedRequest;
use super::statistics::EngineStatistics;
use super::step_model::StepModel;
use super::work_estimate::{BucketEstimate, Work};
use super::work_ledger::Totals;
use super::worker::{NotSent, Worker, WorkerOptions};
use crate::error::RunnerError;
use crate::request::{ImageSpec, PlannedRequest, Ticket, ticket};

/// Why a request was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much work waits.
    #[error("the queue is full; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// When the request should find room: whole seconds, at least one.
        retry_after: Duration,
    },
    /// The engine is shutting down, or its workers have died.
    #[error("the server accepts no more requests")]
    Closed,
}

/// Bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolLimits {
    pub(crate) max_batch_rows: usize,
    /// Requests that may wait, all workers together.
    pub(crate) max_queued_requests: usize,
    /// Estimated seconds of work that one worker may have before it.
    pub(crate) max_queued_seconds: f64,
    pub(crate) request_timeout: Option<Duration>,
}

/// Workers with one queue each.
pub(crate) struct WorkerPool {
    workers: Vec<Worker>,
    limits: PoolLimits,
    clock: Arc<dyn Clock>,
    /// Held while a request is weighed and handed over, so that two never take the same last place.
    is_open: Mutex<bool>,
}

impl WorkerPool {
    /// Starts a worker per model and makes `warm_up`'s images on each.
    pub(crate) fn start<M: StepModel>(
        models: Vec<(String, Arc<M>)>,
        limits: PoolLimits,
        clock: Arc<dyn Clock>,
        warm_up: &[Arc<ImageSpec>],
    ) -> Result<Self, RunnerError> {
        let start = |(name, model): (String, Arc<M>)| {
            let options = WorkerOptions {
                name,
                max_batch_rows: limits.max_batch_rows,
                max_queued_requests: limits.max_queued_requests,
                warm_up: warm_up.to_vec(),
                clock: Arc::clone(&clock),
            };
            Worker::start(model, options)
        };
        let workers = models.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { workers, limits, clock, is_open: Mutex::new(true) })
    }

    /// Accepts a request or says why not.
    pub(crate) fn submit(&self, request: PlannedRequest) -> Result<Ticket, SubmitError> {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_open {
            return Err(SubmitError::Closed);
        }
        let alive = self.workers.iter().filter(|worker| worker.is_alive());
        let mut workers: Vec<_> = alive.map(|worker| (worker, worker.totals())).collect();
        // Without estimates the number of requests decides.
        workers.sort_by(|(_, a), (_, b)| a.seconds.total_cmp(&b.seconds).then(a.requests.cmp(&b.requests)));
        let all = self.totals();
        // Without a living worker the refusal is `Closed` instead: waiting does not help.
        if !workers.is_empty() && all.waiting >= self.limits.max_queued_requests {
            return Err(queue_full(all.seconds_to_first));
        }
        let work = Work::of(&request);
        let (ticket, mut outcome) = ticket(&request);
        let (mut request, mut refusal) = (request, SubmitError::Closed);
        for (worker, totals) in workers {
            let excess = totals.seconds + worker.estimate(&work).unwrap_or(0.0) - self.limits.max_queued_seconds;
            // However long it takes, an idle worker accepts any request.
            if excess > 0.0 && totals.requests > 0 {
                // No longer than the queue itself: once it is empty, the worker accepts any request.
                return Err(queue_full(excess.min(totals.seconds)));
            }
            let (entry, accepted) = (worker.ledger().enter(work), self.clock.now());
            let (timeout, spans) = (self.limits.request_timeout, RequestSpans::accepted());
            match worker.send(AcceptedRequest { request, outcome, entry, accepted, timeout, spans }) {
                Ok(()) => return Ok(ticket),
                Err(NotSent { request: back, is_full }) => {
                    // It died meanwhile, or is busy: the next one may take the request.
                    if is_full {
                        refusal = queue_full(all.seconds_to_first);
                    }
                    (request, outcome) = (back.request, back.outcome);
                }
            }
        }
        Err(refusal)
    }

    /// Takes the queue from a worker that still looks alive, as its death does for a moment.
    #[cfg(test)]
    pub(super) fn cut_off(&self, worker: usize) {
        self.workers[worker].drain();
    }

    /// Whether any worker lives and requests are accepted.
    pub(crate) fn is_open(&self) -> bool {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) && self.workers.iter().any(Worker::is_alive)
    }

    /// Seconds the request would take the quickest worker on its own, once that is known.
    pub(crate) fn estimate(&self, request: &PlannedRequest) -> Option<f64> {
        let work = Work::of(request);
        self.workers.iter().filter_map(|worker| worker.estimate(&work)).min_by(f64::total_cmp)
    }

    /// Sums over all workers.
    pub(crate) fn totals(&self) -> Totals {
        let none = Totals { seconds_to_first: f64::INFINITY, ..Totals::default() };
        self.workers.iter().map(Worker::totals).fold(none, |sum, totals| Totals {
            waiting: sum.waiting + totals.waiting,
            requests: sum.requests + totals.requests,
            running_rows: sum.running_rows + totals.running_rows,
            seconds: sum.seconds + totals.seconds,
            seconds_to_first: sum.seconds_to_first.min(totals.seconds_to_first),
        })
    }

    /// What the buckets take, of the first worker that has measured any.
    pub(crate) fn buckets(&self) -> Vec<BucketEstimate> {
        self.workers.iter().map(Worker::buckets).find(|buckets| !buckets.is_empty()).unwrap_or_default()
    }

    pub(crate) fn statistics(&self) -> EngineStatistics {
        let mut statistics = EngineStatistics::default();
        self.workers.iter().for_each(|worker| worker.add_statistics(&mut statistics));
        statistics
    }

    /// Every worker lives and requests are accepted.
    pub(crate) fn is_ready(&self) -> bool {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) && self.workers.iter().all(Worker::is_alive)
    }

    /// Accepts nothing more; threads end when what was accepted is finished.
    pub(crate) fn drain(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.workers.iter().for_each(Worker::drain);
    }

    /// Every thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.workers.iter().all(Worker::has_ended)
    }
}

fn queue_full(seconds: f64) -> SubmitError {
    SubmitError::QueueFull { retry_after: Duration::from_secs(seconds.ceil().max(1.0) as u64) }
}
