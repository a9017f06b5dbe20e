//! The rules: may this step be reused?
//!
//! The checks run in a fixed order and the first that applies decides. Those that need no tensors
//! come first ([`before_distance`]), so that a forced step costs no device synchronisation; the
//! distance is looked at last ([`by_distance`]). Both are pure functions.
//!
//! These are the rules of DBCache and DBPrune; TeaCache and MagCache have a rule of their own each,
//! in their methods.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/cache_manager.py`, lines 863-955 (`can_cache`) and
//! 553-577 (what `similarity` decides without a distance).

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
    /// Computed: the request would cache, but there was no memory left for its state.
    Budget,
    /// Computed: one of the first steps.
    Warmup,
    /// Computed: forced by the steps mask.
    Mask,
    /// Computed: the request has reached its limit of reused steps.
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
    pub const ALL: [Self; 12] = [
        Self::Cached,
        Self::Off,
        Self::Budget,
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
            Self::Budget => "budget",
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

/// What the counters of one branch say when a step begins.
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

/// What was decided, and the number that is recorded with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) reason: Reason,
    pub(crate) distance: Option<f64>,
}

impl Verdict {
    /// What is decided already; `None` if the distance decides.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        let outcome = |reason, distance| Some(Outcome { reason, distance });
        match self {
            Self::Reuse => outcome(Reason::Cached, None),
            Self::ReuseRecording(distance) => outcome(Reason::Cached, Some(distance)),
            Self::Compute(reason) => outcome(reason, None),
            Self::Compare => None,
        }
    }
}

impl Outcome {
    /// The distance decides.
    pub(crate) fn of_distance(distance: f64, threshold: f64) -> Self {
        Self { reason: by_distance(distance, threshold), distance: Some(distance) }
    }
}

/// Recorded in place of a distance where a threshold of 1 or more reuses without comparing.
pub(crate) const ALWAYS_SIMILAR: f64 = -1.0;
/// Recorded in place of a distance where the shapes differ.
pub(crate) const SHAPES_DIFFER: f64 = -2.0;

/// The checks with the configured threshold.
pub(crate) fn before_distance(plan: &CacheDitPlan, counters: Counters, has_reference: bool) -> Verdict {
    before_distance_to(plan, counters, has_reference, plan.config.residual_diff_threshold)
}

/// The checks with a threshold of the caller's.
pub(crate) fn before_distance_to(
    plan: &CacheDitPlan,
    counters: Counters,
    has_reference: bool,
    threshold: f64,
) -> Verdict {
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
    if threshold <= 0.0 {
        return Verdict::Compute(Reason::ThresholdZero);
    }
    if !has_reference {
        return Verdict::Compute(Reason::NoReference);
    }
    if threshold >= 1.0 {
        return Verdict::ReuseRecording(ALWAYS_SIMILAR);
    }
    Verdict::Compare
}

/// Strictly below the threshold; NaN is not.
fn by_distance(distance: f64, threshold: f64) -> Reason {
    if distance == SHAPES_DIFFER {
        Reason::ShapeChanged
    } else if distance < threshold {
        Reason::Cached
    } else {
        Reason::Distance
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{CacheBackend, CacheConfig, CachePlan, plan::ModelFacts};

    fn verdict(keys: serde_json::Value, counters: Counters, has_reference: bool) -> Verdict {
        let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap()).unwrap();
        let facts = ModelFacts { blocks: &[4], ..Default::default() };
        match CachePlan::new(&config, 10, facts).unwrap() {
            CachePlan::CacheDit(plan) => before_distance(&plan, counters, has_reference),
            other => panic!("{other:?}"),
        }
    }

    const LATE: Counters = Counters { step: 6, cached: 2, streak: 2, accumulated: 0.5 };

    #[test]
    fn the_first_check_that_applies_decides() {
        let everything = json!({
            "max_cached_steps": 2, "max_continuous_cached_steps": 2, "residual_diff_threshold": 0.0,
            "max_accumulated_residual_diff_threshold": 0.5, "steps_computation_mask": [1, 1, 0, 0, 0, 0, 1],
        });
        let mut keys = everything.as_object().unwrap().clone();
        let mut next = |remove: &str| {
            keys.remove(remove);
            verdict(json!(keys.clone()), LATE, false)
        };
        assert_eq!(next(""), Verdict::Compute(Reason::Mask));
        assert_eq!(next("steps_computation_mask"), Verdict::Compute(Reason::MaxCached));
        assert_eq!(next("max_cached_steps"), Verdict::Compute(Reason::MaxContinuous));
        // The default limit in a row is 3.
        assert_eq!(next("max_continuous_cached_steps"), Verdict::Compute(Reason::MaxAccumulated));
        assert_eq!(next("max_accumulated_residual_diff_threshold"), Verdict::Compute(Reason::ThresholdZero));
        assert_eq!(next("residual_diff_threshold"), Verdict::Compute(Reason::NoReference));
        assert_eq!(verdict(json!({}), LATE, true), Verdict::Compare);
    }

    #[test]
    fn a_mask_shortens_the_warm_up_to_its_leading_run() {
        let at = |step| verdict(json!({"steps_computation_mask": [1, 1, 0, 1]}), Counters { step, ..LATE }, true);
        assert_eq!(at(1), Verdict::Compute(Reason::Warmup));
        assert_eq!(at(2), Verdict::Compare);
        assert_eq!(at(3), Verdict::Compute(Reason::Mask));
        assert_eq!(at(9), Verdict::Compare, "past the end the ordinary checks apply");
    }

    #[test]
    fn a_static_mask_asks_nothing_else() {
        let keys = json!({"steps_computation_mask": [1, 0], "scm_steps_policy": "static", "max_cached_steps": 0});
        assert_eq!(verdict(keys, LATE, true), Verdict::Reuse);
    }

    #[test]
    fn only_some_warm_up_steps_are_forced_under_an_interval() {
        let at = |step| verdict(json!({"warmup_interval": 2}), Counters { step, streak: 0, ..LATE }, true);
        assert_eq!([at(0), at(2)], [Verdict::Compute(Reason::Warmup); 2]);
        assert_eq!([at(1), at(3), at(4)], [Verdict::Compare; 3]);
    }

    #[test]
    fn distances_are_compared_strictly_and_nan_is_not_close() {
        assert_eq!(by_distance(0.1, 0.1), Reason::Distance);
        assert_eq!(by_distance(0.0999, 0.1), Reason::Cached);
        assert_eq!(by_distance(f64::NAN, 0.1), Reason::Distance);
        assert_eq!(by_distance(SHAPES_DIFFER, 0.1), Reason::ShapeChanged);
        assert_eq!(verdict(json!({"residual_diff_threshold": 1.0}), LATE, true), Verdict::ReuseRecording(-1.0));
    }
}
