//! What several metrics have in common: buckets of seconds, and numbers as Prometheus counts them.

/// From a cache-hit answer of a small model to minutes on a large one.
pub(super) const SECONDS_BUCKETS: [f64; 14] =
    [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(super) fn gauge_value(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
