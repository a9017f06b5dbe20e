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
    /// cache-dit's name for the first image's run; null without a cache.
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
}

/// Decisions of one image for one block list and guidance branch.
#[derive(Debug, Clone, Serialize)]
pub struct ContextReport {
    /// The block list's name in diffusers.
    pub name: String,
    /// `all`, `cond` or `uncond`.
    pub branch: &'static str,
    /// Steps that were reused, ascending.
    pub cached_steps: Vec<usize>,
    /// Recorded distances by step.
    #[serde(serialize_with = "serialize_distances")]
    pub residual_diffs: BTreeMap<usize, f64>,
    /// Outcome of every step.
    pub reasons: BTreeMap<usize, Reason>,
}

impl CacheReport {
    /// Puts the images of one request together.
    pub fn new(plan: &CachePlan, steps: usize, images: Vec<ImageReport>) -> Self {
        let passes = |reason: Option<Reason>| -> usize {
            let counts = images.iter().flat_map(|image| &image.passes);
            counts.filter(|(passed, _)| reason.is_none_or(|reason| reason == **passed)).map(|(_, count)| count).sum()
        };
        let hit_rate = passes(Some(Reason::Cached)) as f64 / passes(None).max(1) as f64;
        let first_context = images.first().and_then(|image| image.contexts.first());
        let tag = plan.tag(first_context.map_or(0, |context| context.cached_steps.len()));
        Self { backend: plan.backend().as_str(), config: plan.effective_config(), tag, steps, hit_rate, images }
    }
}

impl ImageReport {
    pub(crate) fn count(&mut self, reason: Reason, passes: usize) {
        *self.passes.entry(reason).or_default() += passes;
    }

    pub(crate) fn add(&mut self, context: ContextReport) {
        for reason in context.reasons.values() {
            self.count(*reason, 1);
        }
        self.contexts.push(context);
    }
}

impl ContextReport {
    pub(crate) fn new(branch: &'static str) -> Self {
        Self {
            name: String::new(),
            branch,
            cached_steps: Vec::new(),
            residual_diffs: BTreeMap::new(),
            reasons: BTreeMap::new(),
        }
    }

    pub(crate) fn record(&mut self, step: usize, reason: Reason) {
        if reason == Reason::Cached {
            self.cached_steps.push(step);
        }
        self.reasons.insert(step, reason);
    }
}

/// JSON has no NaN and no infinity; they become the strings `"nan"` and `"inf"`.
fn serialize_distances<S: Serializer>(distances: &BTreeMap<usize, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(distances.iter().map(|(step, distance)| {
        let value = if distance.is_nan() {
            Value::from("nan")
        } else if distance.is_infinite() {
            Value::from("inf")
        } else {
            Value::from(*distance)
        };
        (step, value)
    }))
}
