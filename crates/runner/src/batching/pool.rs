//! The workers of an engine, and the door in front of them.
//!
//! Work is weighed in estimated seconds. A request goes to the worker with the least of it, or to the next
//! one if that worker turns out to be dead, and is refused where that worker already has too much, or where
//! too many requests wait. Clients share both bounds ([`SharedUse`]): what one of them has waiting keeps no other out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use super::request_spans::RequestSpans;
use super::running_request::AcceptedRequest;
use super::sample_queue::SampleQueue;
use super::statistics::EngineStatistics;
use super::step_model::StepModel;
use super::work_estimate::{BucketEstimate, Work};
use super::work_ledger::Totals;
use super::worker::{NotSent, Worker, WorkerOptions};
use crate::error::RunnerError;
use crate::fair_share::SharedUse;
use crate::request::{ImageSpec, Owner, PlannedRequest, SampleFailure, SampleSink, Ticket, UncachedImage, ticket};

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

/// What a worker is started for.
pub(crate) struct WorkerSeat<M> {
    pub(crate) name: String,
    /// Devices are counted from 0; workers on one share it.
    pub(crate) device: usize,
    pub(crate) model: Arc<M>,
}

/// Workers with one queue each.
pub(crate) struct WorkerPool<M: StepModel> {
    workers: Vec<Worker>,
    /// Of each device.
    samples: Vec<Arc<SampleQueue<M::Image>>>,
    limits: PoolLimits,
    clock: Arc<dyn Clock>,
    /// Held while a request is weighed and handed over, so that two never take the same last place.
    is_open: Mutex<bool>,
}

impl<M: StepModel> WorkerPool<M> {
    /// Starts a worker per seat and makes `warm_up`'s images on each.
    pub(crate) fn start(
        seats: Vec<WorkerSeat<M>>,
        limits: PoolLimits,
        clock: Arc<dyn Clock>,
        warm_up: &[Arc<ImageSpec>],
    ) -> Result<Self, RunnerError> {
        let devices = seats.iter().map(|seat| seat.device + 1).max().unwrap_or(0);
        let samples: Vec<Arc<SampleQueue<M::Image>>> = (0..devices).map(|_| Arc::default()).collect();
        let start = |WorkerSeat { name, device, model }: WorkerSeat<M>| {
            let options = WorkerOptions {
                name,
                device,
                max_batch_rows: limits.max_batch_rows,
                // All clients together come up to twice the bound.
                max_requests_on_their_way: limits.max_queued_requests.saturating_mul(2),
                warm_up: warm_up.to_vec(),
                clock: Arc::clone(&clock),
            };
            Worker::start(model, Arc::clone(&samples[device]), options)
        };
        let workers = seats.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { workers, samples, limits, clock, is_open: Mutex::new(true) })
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
        let (all, owner) = (self.totals(), request.owner);
        // Without a living worker the refusal is `Closed` instead: waiting does not help.
        if !workers.is_empty() {
            self.check_places(owner, &all)?;
        }
        let work = Work::of(&request);
        let (ticket, mut outcome) = ticket(&request);
        let (mut request, mut refusal) = (request, SubmitError::Closed);
        for (worker, totals) in workers {
            let seconds = worker.uses().into_iter().map(|used| (used.owner, used.seconds));
            let estimate = worker.estimate(&work).unwrap_or(0.0);
            let excess = SharedUse::seen_by(owner, seconds).excess(estimate, self.limits.max_queued_seconds);
            // However long it takes, an idle worker accepts any request.
            if excess > 0.0 && totals.requests > 0 {
                // No longer than the queue itself: once it is empty, the worker accepts any request.
                return Err(queue_full(excess.min(totals.seconds)));
            }
            let entry = worker.ledger().enter(work, owner, outcome.cancelled());
            let (accepted, timeout) = (self.clock.now(), self.limits.request_timeout);
            let spans = RequestSpans::accepted();
            match worker.send(Box::new(AcceptedRequest { request, outcome, entry, accepted, timeout, spans })) {
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

    /// Has the image's device make it once that has nothing else to do.
    pub(crate) fn sample(&self, image: UncachedImage, sink: SampleSink) {
        let device = image.device;
        // All requests were made by one of this pool's devices.
        let Some(samples) = self.samples.get(device) else { return sink(Err(SampleFailure::Closed)) };
        if samples.offer(image, sink) {
            self.workers.iter().filter(|worker| worker.device() == device).for_each(Worker::wake);
        }
    }

    /// Refuses an owner that has its share of the places while all are taken.
    fn check_places(&self, owner: Owner, all: &Totals) -> Result<(), SubmitError> {
        let waiting = self.workers.iter().flat_map(Worker::uses).filter(|used| used.waits);
        let places = waiting.map(|used| (used.owner, 1.0));
        let excess = SharedUse::seen_by(owner, places).excess(1.0, self.limits.max_queued_requests as f64);
        if excess <= 0.0 {
            return Ok(());
        }
        // The first place is free once a request is done, each further one once as much work is done as a request has.
        let per_request = all.seconds / all.requests.max(1) as f64;
        Err(queue_full((all.seconds_to_first + (excess.ceil() - 1.0) * per_request).min(all.seconds)))
    }

    /// Seconds until the first of the owner's requests should be done, if it has some.
    pub(crate) fn seconds_to_first_of(&self, owner: Owner) -> f64 {
        let of_worker = |worker: &Worker| {
            let uses = worker.uses();
            let begun = uses.iter().filter(|used| !used.waits).count();
            let all: f64 = uses.iter().map(|used| used.seconds).sum();
            let own = uses.iter().filter(|used| used.owner == owner);
            // Running requests advance side by side; before one that waits there may be all others.
            let done = own.map(|used| if used.waits { all } else { all.min(used.seconds * begun as f64) });
            done.min_by(f64::total_cmp)
        };
        self.workers.iter().filter_map(of_worker).min_by(f64::total_cmp).unwrap_or(0.0)
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

    /// Accepts nothing more and gives samples up; threads end when what was accepted is finished.
    pub(crate) fn drain(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.samples.iter().for_each(|samples| samples.close());
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
