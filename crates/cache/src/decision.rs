//! The rules: may this step be reused?
//!
//! The checks run in a fixed order and the first that applies decides. Those that need no tensors
//! come first ([`before_distance`]), so that a forced step costs no device synchronisation; the
//! distance is looked at last ([`by_distance`]). Both are pure functions.

use serde::Serialize;

use crate::config::MaskMode;
use crate::plan::CacheDitPlan;

/// Why a step was computed, or that it was reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Reused.
    Cached,
    /// Computed: the request does not cache.
    Off,
    /// Computed: one of the first steps.
    Warmup,
    /// Computed: forced by the steps mask.
    Mask,
    /// Computed: the request has its fill of reused steps.
    MaxCached,
    /// Computed: too many reused steps in a row.
    MaxContinuous,
    /// Computed: the recorded distances add up to the limit.
    MaxAccumulated,
    /// Computed: a threshold of 0 or less never reuses.
    ThresholdZero,
    /// Computed: there is no earlier computed step to compare with.
    NoReference,
    /// Computed: the earlier computed step had another shape.
    ShapeChanged,
    /// Computed: too far from the last computed step.
    Distance,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Cached,
        Self::Off,
        Self::Warmup,
        Self::Mask,
        Self::MaxCached,
        Self::MaxContinuous,
        Self::MaxAccumulated,
        Self::ThresholdZero,
        Self::NoReference,
        Self::ShapeChanged,
        Self::Distance,
    ];

    /// The name used in responses and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Off => "off",
            Self::Warmup => "warmup",
            Self::Mask => "mask",
            Self::MaxCached => "max_cached",
            Self::MaxContinuous => "max_continuous",
            Self::MaxAccumulated => "max_accumulated",
            Self::ThresholdZero => "threshold_zero",
            Self::NoReference => "no_reference",
            Self::ShapeChanged => "shape_changed",
            Self::Distance => "distance",
        }
    }
}

/// What the counters of one session say when a step begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    /// Index of the step since the state was last rebuilt.
    pub(crate) step: usize,
    /// Reused steps since then.
    pub(crate) cached: usize,
    /// Reused steps in a row up to now.
    pub(crate) streak: usize,
    /// Sum of the recorded distances since then.
    pub(crate) accumulated: f64,
    /// A step was computed since then.
    pub(crate) has_reference: bool,
}

/// Outcome of the checks that need no tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// Reuse without a recorded distance.
    Reuse,
    /// Reuse; this stands in for the distance.
    ReuseRecording(f64),
    /// Compute, for this reason.
    Compute(Reason),
    /// The distance decides.
    Compare,
}

/// Recorded in place of a distance where a threshold of 1 or more reuses unseen.
pub(crate) const ALWAYS_SIMILAR: f64 = -1.0;
/// Recorded in place of a distance where the shapes differ.
pub(crate) const SHAPES_DIFFER: f64 = -2.0;

pub(crate) fn before_distance(plan: &CacheDitPlan, counters: Counters) -> Verdict {
    let config = &plan.config;
    let Counters { step, .. } = counters;
    let reached = |limit: Option<usize>, count: usize| limit.is_some_and(|limit| count >= limit);

    if step < plan.warmup_steps() && step.is_multiple_of(config.warmup_interval) {
        return Verdict::Compute(Reason::Warmup);
    }
    if let Some(mask) = &plan.mask {
        if mask.get(step).copied().unwrap_or(false) {
            return Verdict::Compute(Reason::Mask);
        }
        if config.mask_mode == MaskMode::Static {
            return Verdict::Reuse;
        }
    }
    if reached(config.max_cached_steps, counters.cached) {
        return Verdict::Compute(Reason::MaxCached);
    }
    if reached(config.max_continuous_cached_steps, counters.streak) {
        return Verdict::Compute(Reason::MaxContinuous);
    }
    let accumulated_limit = config.max_accumulated_residual_diff_threshold.filter(|limit| *limit > 0.0);
    if accumulated_limit.is_some_and(|limit| counters.accumulated >= limit) {
        return Verdict::Compute(Reason::MaxAccumulated);
    }
    if config.residual_diff_threshold <= 0.0 {
        return Verdict::Compute(Reason::ThresholdZero);
    }
    if !counters.has_reference {
        return Verdict::Compute(Reason::NoReference);
    }
    if config.residual_diff_threshold >= 1.0 {
        return Verdict::ReuseRecording(ALWAYS_SIMILAR);
    }
    Verdict::Compare
}

/// Strictly below the threshold; NaN is not.
pub(crate) fn by_distance(plan: &CacheDitPlan, distance: f64) -> Reason {
    if distance == SHAPES_DIFFER {
        Reason::ShapeChanged
    } else if distance < plan.config.residual_diff_threshold {
        Reason::Cached
    } else {
        Reason::Distance
    }
}
