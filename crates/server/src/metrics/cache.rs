//! What the cache decided.
//!
//! Steps are counted when a request finishes. Then computed + cached = steps x block lists x branches x
//! images, for uncached requests as well.

use afterimage_cache::report::Recorded;
use afterimage_cache::{CacheBackend, CacheReport, Reason};
use prometheus::{Histogram, IntCounterVec};

use super::catalog::{Catalog, Family};
use super::values::count;
use crate::auto_cache::AutoOutcome;

const HIT_RATE_BUCKETS: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Thresholds in use lie between 0.02 and 0.5.
const DISTANCE_BUCKETS: [f64; 12] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.24, 0.35, 0.5, 1.0];

/// Why a cache did nothing for a request.
#[derive(Debug, Clone, Copy)]
enum Fallback {
    Unused,
    Budget,
}

/// The metrics of caching.
pub(super) struct CacheMetrics {
    steps: IntCounterVec,
    hit_rate: Histogram,
    residual_distance: Histogram,
    fallbacks: IntCounterVec,
    auto: IntCounterVec,
}

impl CacheMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let metrics = Self {
            steps: catalog.counters(Family {
                name: "afterimage_steps_total",
                unit: "passes",
                labels: &[
                    ("decision", "computed, cached"),
                    ("reason", "cached, or why it was computed, as in a response's `reasons`"),
                ],
                help: "Passes through a block list (one per step, list, guidance branch and image), computed or cached",
            }),
            hit_rate: catalog.histogram(
                Family {
                    name: "afterimage_cache_hit_rate",
                    unit: "share",
                    labels: &[],
                    help: "Cached share of the passes of a request that uses a cache",
                },
                &HIT_RATE_BUCKETS,
            ),
            residual_distance: catalog.histogram(
                Family {
                    name: "afterimage_cache_residual_distance",
                    unit: "share",
                    labels: &[],
                    help: "Relative distances that were compared with a threshold",
                },
                &DISTANCE_BUCKETS,
            ),
            fallbacks: catalog.counters(Family {
                name: "afterimage_cache_fallback_total",
                unit: "requests",
                labels: &[("reason", "unused, budget")],
                help: "Requests with a cache that reused no step: none came to it (unused), or no memory was left (budget)",
            }),
            auto: catalog.counters(Family {
                name: "afterimage_cache_auto_total",
                unit: "requests",
                labels: &[("outcome", "chosen, no_profile, no_case, floor_not_held")],
                help: "Accepted requests with cache_backend auto, by what was found in the model's cache_profile.json; all but chosen run without a cache",
            }),
        };
        for outcome in AutoOutcome::ALL {
            metrics.auto.with_label_values(&[outcome.as_str()]);
        }
        for reason in Reason::ALL {
            metrics.steps.with_label_values(&[decision(reason), reason.as_str()]);
        }
        for fallback in Fallback::ALL {
            metrics.fallbacks.with_label_values(&[fallback.as_str()]);
        }
        metrics
    }

    pub(super) fn reported(&self, report: &CacheReport) {
        for (reason, passes) in report.images.iter().flat_map(|image| &image.passes) {
            self.steps.with_label_values(&[decision(*reason), reason.as_str()]).inc_by(count(*passes));
        }
        let mut contexts = report.images.iter().flat_map(|image| &image.contexts).peekable();
        if contexts.peek().is_some() {
            self.hit_rate.observe(report.hit_rate);
        }
        if report.backend == CacheBackend::CacheDit.as_str() {
            let recorded = contexts.flat_map(|context| context.residual_diffs.values());
            // Negative ones are signs ("no comparison took place"), not distances.
            let is_distance = |value: &&f64| value.is_finite() && **value >= 0.0;
            recorded
                .flat_map(Recorded::values)
                .filter(is_distance)
                .for_each(|value| self.residual_distance.observe(*value));
        }
    }

    pub(super) fn auto(&self, outcome: AutoOutcome) {
        self.auto.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(super) fn never_engaged(&self, report: &CacheReport) {
        let budget = report.images.iter().any(|image| image.passes.contains_key(&Reason::Budget));
        let fallback = if budget { Fallback::Budget } else { Fallback::Unused };
        self.fallbacks.with_label_values(&[fallback.as_str()]).inc();
    }
}

impl Fallback {
    const ALL: [Self; 2] = [Self::Unused, Self::Budget];

    fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Budget => "budget",
        }
    }
}

fn decision(reason: Reason) -> &'static str {
    if reason == Reason::Cached { "cached" } else { "computed" }
}
