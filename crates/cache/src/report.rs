//! What the cache did, in the shape the HTTP response shows it.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::decision::Reason;
use crate::plan::CachePlan;

/// The `cache` object of a response.
#[derive(Debug, Clone, Serialize)]
pub struct CacheReport {
    /// Name of the backend.
    pub backend: &'static str,
    /// Every key of the configuration in force.
    pub config: Map<String, Value>,
    /// cache-dit's name for the first image's run; null for other backends.
    pub tag: Option<String>,
    /// Denoising steps of every image.
    pub steps: usize,
    /// Reused share of all passes through a block list.
    pub hit_rate: f64,
    /// One entry per image.
    pub images: Vec<ImageReport>,
}

/// Decisions of one image.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImageReport {
    /// One entry per block list and guidance branch; empty without a cache.
    pub contexts: Vec<ContextReport>,
    /// Passes through a block list by outcome, uncached images included.
    #[serde(skip)]
    pub passes: BTreeMap<Reason, usize>,
    /// Blocks that ran, a block of a forward counted once for all rows of the image; uncached images included.
    #[serde(skip)]
    pub executed_blocks: usize,
    /// The most bytes that the image's cache state could come to hold: what was reserved for it.
    #[serde(skip)]
    pub state_bytes: usize,
    /// cache-dit's name for this image's run, set by [`CacheReport::new`].
    #[serde(skip)]
    pub tag: Option<String>,
}

/// Decisions of one image for one block list and guidance branch.
#[derive(Debug, Clone, Serialize)]
pub struct ContextReport {
    /// The block list's name in diffusers.
    pub name: String,
    /// `all`, `cond` or `uncond`.
    pub branch: &'static str,
    /// Steps that were reused (DBPrune: in part), ascending.
    pub cached_steps: Vec<usize>,
    /// What was compared with a threshold, by step.
    pub residual_diffs: BTreeMap<usize, Recorded>,
    /// Outcome of every step.
    pub reasons: BTreeMap<usize, Reason>,
    /// DBPrune: blocks skipped since the last forced refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned_blocks: Option<PrunedBlocks>,
}

/// The numbers recorded for one step.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// One comparison.
    One(f64),
    /// DBPrune: one per block that was compared.
    PerBlock(Vec<f64>),
}

/// How many blocks were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PrunedBlocks {
    /// Skipped.
    pub pruned: usize,
    /// All.
    pub total: usize,
}

impl CacheReport {
    /// Puts the images of one request together.
    pub fn new(plan: &CachePlan, steps: usize, mut images: Vec<ImageReport>) -> Self {
        for image in &mut images {
            image.tag = image.contexts.first().and_then(|context| context.tag(plan));
        }
        let hits = images.iter().map(|image| image.passes.get(&Reason::Cached).unwrap_or(&0)).sum::<usize>();
        let passes = images.iter().flat_map(|image| image.passes.values()).sum::<usize>();
        Self {
            backend: plan.backend().as_str(),
            config: plan.effective_config(),
            tag: images.first().and_then(|image| image.tag.clone()),
            steps,
            hit_rate: hits as f64 / passes.max(1) as f64,
            images,
        }
    }

    /// A cache was asked for and no step was reused.
    pub fn never_engaged(&self) -> bool {
        self.hit_rate == 0.0 && self.images.iter().any(|image| !image.contexts.is_empty())
    }
}

impl ImageReport {
    pub(crate) fn count(&mut self, reason: Reason, passes: usize) {
        *self.passes.entry(reason).or_default() += passes;
    }

    pub(crate) fn add(&mut self, list: &str, context: ContextReport) {
        for reason in context.reasons.values() {
            self.count(*reason, 1);
        }
        self.contexts.push(ContextReport { name: list.to_owned(), ..context });
    }
}

impl ContextReport {
    /// cache-dit's name for this run; `None` where `plan` is not of its backend.
    pub fn tag(&self, plan: &CachePlan) -> Option<String> {
        plan.tag(self.cached_steps.len(), self.pruned_blocks.map(PrunedBlocks::percent))
    }
}

impl PrunedBlocks {
    /// Share skipped, in percent rounded to two digits.
    pub fn percent(self) -> f64 {
        (self.pruned as f64 / self.total.max(1) as f64 * 1e4).round_ties_even() / 100.0
    }
}

impl Recorded {
    /// The numbers, in the order they were recorded.
    pub fn values(&self) -> &[f64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::PerBlock(values) => values,
        }
    }
}

/// JSON has no NaN and no infinity; they become the strings `"nan"` and `"inf"`.
impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = |value: &f64| match value {
            value if value.is_nan() => Value::from("nan"),
            value if value.is_infinite() => Value::from("inf"),
            value => Value::from(*value),
        };
        match self {
            Self::One(value) => json(value).serialize(serializer),
            Self::PerBlock(values) => serializer.collect_seq(values.iter().map(json)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::step_log::StepLog;

    #[test]
    fn numbers_json_lacks_are_words() {
        let one = |value| serde_json::to_value(Recorded::One(value)).unwrap();
        assert_eq!([one(f64::NAN), one(f64::INFINITY), one(-1.0)], [json!("nan"), json!("inf"), json!(-1.0)]);
        let several = serde_json::to_value(Recorded::PerBlock(vec![0.5, f64::NAN])).unwrap();
        assert_eq!(several, json!([0.5, "nan"]));
    }

    #[test]
    fn a_cache_that_never_reused_is_told_from_no_cache() {
        let mut log = StepLog::new("all");
        log.record(0, Reason::Warmup);
        let mut image = ImageReport::default();
        image.add("blocks", log.report());
        assert!(CacheReport::new(&CachePlan::None, 1, vec![image]).never_engaged());
        let mut uncached = ImageReport::default();
        uncached.count(Reason::Off, 1);
        assert!(!CacheReport::new(&CachePlan::None, 1, vec![uncached]).never_engaged());
        let mut image = ImageReport::default();
        log.record(1, Reason::Cached);
        image.add("blocks", log.report());
        assert!(!CacheReport::new(&CachePlan::None, 2, vec![image]).never_engaged());
    }
}
