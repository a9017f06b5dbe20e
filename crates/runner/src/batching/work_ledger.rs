//! What a worker still has to do, written by the worker and read by those who hand it work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::work_estimate::{BucketEstimate, Work, WorkEstimates};
use crate::request::Owner;

/// The accepted requests of one worker and the estimates they are weighed with.
#[derive(Debug, Default)]
pub(super) struct WorkLedger {
    /// Requests in the ledgers of all workers on the device.
    on_device: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    estimates: WorkEstimates,
    requests: BTreeMap<u64, Line>,
    next: u64,
}

/// One request.
#[derive(Debug)]
struct Line {
    owner: Owner,
    /// Its client has left: it takes up its place until the worker lets it go, but no more time.
    is_given_up: Arc<AtomicBool>,
    remaining: Remaining,
}

/// What is left of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remaining {
    pub(super) work: Work,
    /// One of its images was begun.
    pub(super) has_begun: bool,
    /// Rows of its running images.
    pub(super) running_rows: usize,
}

/// What one request takes up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) owner: Owner,
    /// Nothing of it was begun.
    pub(super) waits: bool,
    /// Estimated work left.
    pub(super) seconds: f64,
}

/// A request's line in the ledger, struck out when dropped.
#[derive(Debug)]
pub(super) struct LedgerEntry {
    id: u64,
    ledger: Arc<WorkLedger>,
}

/// The ledger's sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    /// Requests of which nothing was begun.
    pub(crate) waiting: usize,
    /// All requests.
    pub(crate) requests: usize,
    pub(crate) running_rows: usize,
    /// Estimated work left, waiting and running.
    pub(crate) seconds: f64,
    /// Estimated time until the first request is done.
    pub(crate) seconds_to_first: f64,
}

impl WorkLedger {
    /// An empty one, whose requests are counted in `on_device` as well.
    pub(super) fn new(on_device: Arc<AtomicUsize>) -> Self {
        Self { on_device, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Estimates and counts: after a panic they are at worst imprecise, so the ledger goes on with them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down a request that waits, until it `is_given_up`.
    pub(super) fn enter(self: &Arc<Self>, work: Work, owner: Owner, is_given_up: Arc<AtomicBool>) -> LedgerEntry {
        let mut state = self.state();
        self.on_device.fetch_add(1, Ordering::SeqCst);
        let id = state.next;
        state.next += 1;
        let remaining = Remaining { work, has_begun: false, running_rows: 0 };
        state.requests.insert(id, Line { owner, is_given_up, remaining });
        LedgerEntry { id, ledger: Arc::clone(self) }
    }

    /// Brings requests up to date.
    pub(super) fn update<'a>(&self, entries: impl Iterator<Item = (&'a LedgerEntry, Remaining)>) {
        let mut state = self.state();
        for (entry, remaining) in entries {
            if let Some(line) = state.requests.get_mut(&entry.id) {
                line.remaining = remaining;
            }
        }
    }

    /// Takes measurements in.
    pub(super) fn measure(&self, measurement: impl FnOnce(&mut WorkEstimates)) {
        measurement(&mut self.state().estimates);
    }

    /// Seconds that `work` takes this worker on its own, once that is known.
    pub(super) fn estimate(&self, work: &Work) -> Option<f64> {
        self.state().estimates.seconds(work)
    }

    pub(super) fn buckets(&self) -> Vec<BucketEstimate> {
        self.state().estimates.buckets()
    }

    pub(super) fn totals(&self) -> Totals {
        let state = self.state();
        let mut totals = Totals { requests: state.requests.len(), ..Totals::default() };
        let mut shortest = f64::INFINITY;
        let mut begun = 0;
        for line in state.requests.values() {
            let (remaining, seconds) = (&line.remaining, state.seconds(line));
            totals.seconds += seconds;
            totals.running_rows += remaining.running_rows;
            if remaining.has_begun {
                begun += 1;
                shortest = shortest.min(seconds);
            } else {
                totals.waiting += 1;
            }
        }
        // Running requests advance side by side, so the first to end has waited for all of them.
        totals.seconds_to_first = totals.seconds.min(shortest * f64::from(begun.max(1)));
        totals
    }

    /// What every request takes up.
    pub(super) fn uses(&self) -> Vec<Use> {
        let state = self.state();
        let of =
            |line: &Line| Use { owner: line.owner, waits: !line.remaining.has_begun, seconds: state.seconds(line) };
        state.requests.values().map(of).collect()
    }
}

impl State {
    /// Work that is left of a request. Sizes that were never measured count nothing: a new server refuses no request for
    /// lack of estimates.
    fn seconds(&self, line: &Line) -> f64 {
        match line.is_given_up.load(Ordering::Relaxed) {
            true => 0.0,
            false => self.estimates.seconds(&line.remaining.work).unwrap_or(0.0),
        }
    }
}

impl Drop for LedgerEntry {
    fn drop(&mut self) {
        self.ledger.state().requests.remove(&self.id);
        self.ledger.on_device.fetch_sub(1, Ordering::SeqCst);
    }
}
