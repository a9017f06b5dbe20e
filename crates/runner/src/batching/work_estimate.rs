//! How many seconds work will take, from what work took.
//!
//! The unit is the *row-step*: one row of a batch through one computed step. A reused step is counted
//! at a fixed part of that; where the part is wrong for a model, the measured seconds per row-step
//! make up for it, because they are divided by the same count.

use std::collections::{BTreeMap, HashMap};

use afterimage_cache::CacheBackend;

use crate::request::Size;

/// Cost of a reused step in computed ones: the blocks that always run, embedding, output and the
/// scheduler of a model of a dozen blocks.
const REUSED_STEP_COST: f64 = 0.15;
/// Weight of the newest value in a running mean: some twenty steps decide.
const NEWEST_WEIGHT: f64 = 0.1;

/// What one bucket's work takes, as measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketEstimate {
    /// The bucket.
    pub size: Size,
    /// Seconds of one row in one computed step, at recent batch sizes.
    pub seconds_per_row_step: f64,
    /// Seconds to decode one image.
    pub decode_seconds: f64,
}

/// Work of one request that is still to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Work {
    pub(super) size: Size,
    pub(super) backend: CacheBackend,
    /// Images to begin, whose texts may have to be encoded.
    pub(super) begins: usize,
    /// Rows times steps, over all images, as if every step were computed.
    pub(super) row_steps: f64,
    /// Images and previews to decode.
    pub(super) decodes: usize,
}

/// Running means of everything an estimate is made from.
#[derive(Debug, Default)]
pub(super) struct WorkEstimates {
    /// Of beginning an image; nothing where its texts are kept from an earlier one.
    begin_seconds: Mean,
    buckets: BTreeMap<Size, BucketMeans>,
    computed_shares: HashMap<CacheBackend, Mean>,
}

#[derive(Debug, Default)]
struct BucketMeans {
    row_step_seconds: Mean,
    decode_seconds: Mean,
}

/// An exponentially weighted mean; its first value counts in full.
#[derive(Debug, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + NEWEST_WEIGHT * (value - mean)));
    }
}

/// Row-steps of `rows` rows in one step.
pub(super) fn row_steps(rows: usize, is_reused: bool) -> f64 {
    rows as f64 * if is_reused { REUSED_STEP_COST } else { 1.0 }
}

impl WorkEstimates {
    /// An image was begun in `seconds`.
    pub(super) fn add_begin(&mut self, seconds: f64) {
        self.begin_seconds.add(seconds);
    }

    /// A shared step of this many row-steps took `seconds`.
    pub(super) fn add_step(&mut self, size: Size, row_steps: f64, seconds: f64) {
        if row_steps > 0.0 {
            self.buckets.entry(size).or_default().row_step_seconds.add(seconds / row_steps);
        }
    }

    /// The decoding of an image or a preview took `seconds`.
    pub(super) fn add_decode(&mut self, size: Size, seconds: f64) {
        self.buckets.entry(size).or_default().decode_seconds.add(seconds);
    }

    /// An image with this backend reused `cached` of its `steps`.
    pub(super) fn add_image(&mut self, backend: CacheBackend, cached: usize, steps: usize) {
        if backend != CacheBackend::None && steps > 0 {
            let computed = steps.saturating_sub(cached) as f64 + cached as f64 * REUSED_STEP_COST;
            self.computed_shares.entry(backend).or_default().add(computed / steps as f64);
        }
    }

    /// Seconds that `work` takes a worker on its own; `None` until the bucket was measured.
    pub(super) fn seconds(&self, work: &Work) -> Option<f64> {
        let bucket = self.buckets.get(&work.size)?;
        // Until an image with this backend is done, all of its steps count as computed: rather too long than too short.
        let share = self.computed_shares.get(&work.backend).and_then(|share| share.0).unwrap_or(1.0);
        let begins = work.begins as f64 * self.begin_seconds.0.unwrap_or(0.0);
        let decodes = work.decodes as f64 * bucket.decode_seconds.0.unwrap_or(0.0);
        Some(begins + work.row_steps * share * bucket.row_step_seconds.0? + decodes)
    }

    /// Every bucket that was measured.
    pub(super) fn buckets(&self) -> Vec<BucketEstimate> {
        let estimate = |(size, means): (&Size, &BucketMeans)| {
            Some(BucketEstimate {
                size: *size,
                seconds_per_row_step: means.row_step_seconds.0?,
                decode_seconds: means.decode_seconds.0.unwrap_or(0.0),
            })
        };
        self.buckets.iter().filter_map(estimate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 64, height: 64 };

    fn work(backend: CacheBackend) -> Work {
        Work { size: SIZE, backend, begins: 1, row_steps: 40.0, decodes: 2 }
    }

    #[test]
    fn an_estimate_is_row_steps_times_seconds_plus_texts_and_decoding() {
        let mut estimates = WorkEstimates::default();
        assert_eq!(estimates.seconds(&work(CacheBackend::None)), None);
        estimates.add_step(SIZE, 4.0, 2.0);
        assert_eq!(estimates.seconds(&work(CacheBackend::None)), Some(20.0));
        estimates.add_decode(SIZE, 3.0);
        assert_eq!(estimates.seconds(&work(CacheBackend::None)), Some(26.0));
        estimates.add_begin(0.5);
        assert_eq!(estimates.seconds(&work(CacheBackend::None)), Some(26.5));
        assert_eq!(estimates.buckets().len(), 1);
    }

    #[test]
    fn cached_requests_are_expected_to_compute_the_share_they_computed_before() {
        let mut estimates = WorkEstimates::default();
        estimates.add_step(SIZE, 1.0, 1.0);
        assert_eq!(estimates.seconds(&work(CacheBackend::TeaCache)), Some(40.0));
        estimates.add_image(CacheBackend::TeaCache, 5, 10);
        let share = 0.5 + 0.5 * REUSED_STEP_COST;
        assert_eq!(estimates.seconds(&work(CacheBackend::TeaCache)), Some(40.0 * share));
        assert_eq!(estimates.seconds(&work(CacheBackend::None)), Some(40.0));
    }

    #[test]
    fn later_measurements_move_the_mean() {
        let mut estimates = WorkEstimates::default();
        estimates.add_step(SIZE, 1.0, 1.0);
        estimates.add_step(SIZE, 1.0, 2.0);
        estimates.add_step(SIZE, 0.0, 9.0);
        assert_eq!(estimates.seconds(&work(CacheBackend::None)), Some(40.0 * 1.1));
    }
}
