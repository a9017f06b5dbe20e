//! What the workers count.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shared_step::SharedStep;

/// Counters of an engine since its start, all workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStatistics {
    /// Shared forwards by their number of rows; index 0 is never counted.
    pub batch_rows: Vec<u64>,
    /// Images begun.
    pub images_begun: u64,
    /// Images among them that joined others of their bucket on their way.
    pub joins: u64,
    /// Requests that gave images.
    pub finished: u64,
    /// Requests given up because their client had left.
    pub cancelled: u64,
    /// Requests given up because they had expired.
    pub timed_out: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Shared forwards that failed and were made again image by image.
    pub isolated_steps: u64,
    /// Forwards that a device had no memory for.
    pub forwards_too_large: u64,
    /// Previews not sent: nobody took the earlier ones in time, or they could not be decoded.
    pub previews_dropped: u64,
    /// Workers that died and were started again.
    pub worker_restarts: u64,
}

/// The counters of one worker.
#[derive(Debug)]
pub(super) struct Counters {
    batch_rows: Vec<AtomicU64>,
    pub(super) images_begun: AtomicU64,
    pub(super) joins: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) isolated_steps: AtomicU64,
    pub(super) forwards_too_large: AtomicU64,
    pub(super) previews_dropped: AtomicU64,
    pub(super) restarts: AtomicU64,
}

impl Counters {
    pub(super) fn new(max_batch_rows: usize) -> Self {
        Self {
            batch_rows: (0..=max_batch_rows).map(|_| AtomicU64::new(0)).collect(),
            images_begun: AtomicU64::new(0),
            joins: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            isolated_steps: AtomicU64::new(0),
            forwards_too_large: AtomicU64::new(0),
            previews_dropped: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }
    }

    pub(super) fn count_step(&self, step: &SharedStep) {
        step.forwards.iter().filter_map(|rows| self.batch_rows.get(*rows)).for_each(count);
        if step.was_isolated {
            count(&self.isolated_steps);
        }
        self.forwards_too_large.fetch_add(step.too_large, Ordering::Relaxed);
    }

    pub(super) fn add_to(&self, statistics: &mut EngineStatistics) {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        statistics.batch_rows.resize(self.batch_rows.len().max(statistics.batch_rows.len()), 0);
        for (sum, batches) in statistics.batch_rows.iter_mut().zip(&self.batch_rows) {
            *sum += value(batches);
        }
        statistics.images_begun += value(&self.images_begun);
        statistics.joins += value(&self.joins);
        statistics.finished += value(&self.finished);
        statistics.cancelled += value(&self.cancelled);
        statistics.timed_out += value(&self.timed_out);
        statistics.failed += value(&self.failed);
        statistics.isolated_steps += value(&self.isolated_steps);
        statistics.forwards_too_large += value(&self.forwards_too_large);
        statistics.previews_dropped += value(&self.previews_dropped);
        statistics.worker_restarts += value(&self.restarts);
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
