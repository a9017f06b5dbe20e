//! A configuration made concrete for one request on one model.
//!
//! Parsing cannot know the number of steps and of blocks; a plan does. It holds the steps mask in
//! force and is proof that the configuration fits: everything after it can rely on `Fn + Bn` being
//! at most the number of blocks, and on a static mask starting with a computed step.

mod cache_dit;
mod mag_cache;
mod tag;
mod tea_cache;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::clock::StepClock;
use crate::config::{BlockLists, CacheBackend, CacheConfig, ConfigError, Inherited, TEA_CACHE_COEFFICIENTS};

pub use cache_dit::CacheDitPlan;
pub use mag_cache::MagCachePlan;
pub use tea_cache::TeaCachePlan;

/// What the cache needs to know about a request's model.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelFacts<'a> {
    /// Number of blocks of every block list; they run one after the other.
    pub blocks: &'a [usize],
    /// Cond and uncond run as two forwards per step in this request.
    pub separate_cfg: bool,
    /// The model's own rescaling polynomial for TeaCache, highest degree first.
    pub tea_cache_coefficients: Option<[f64; TEA_CACHE_COEFFICIENTS]>,
    /// The model's own magnitude ratios for MagCache, by step of some run.
    pub mag_ratios: Option<&'a [f64]>,
    /// So many of the first blocks each leave their output to another block, which needs it in the same forward: the
    /// first block to the last, the second to the last but one, and so on.
    pub long_skips: usize,
    /// From this list on cache-dit sees text and picture as one stream, where it saw two before. It then decides about every
    /// list by itself.
    pub streams_join_at: Option<usize>,
}

/// A checked configuration of one request.
#[derive(Debug, Clone)]
pub enum CachePlan {
    /// Every block of every step is computed.
    None,
    /// Every block of every step is computed, and observed for a fit.
    Calibrate,
    /// DBCache or DBPrune.
    CacheDit(Arc<CacheDitPlan>),
    /// TeaCache.
    TeaCache(Arc<TeaCachePlan>),
    /// MagCache.
    MagCache(Arc<MagCachePlan>),
}

impl CachePlan {
    /// Fits `config` to a request of `steps` steps.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that does not fit the steps or the model.
    pub fn new(config: &CacheConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        Ok(match config {
            CacheConfig::None => Self::None,
            CacheConfig::CacheDit(config) => Self::CacheDit(Arc::new(CacheDitPlan::new(config, steps, model)?)),
            CacheConfig::TeaCache(config) => Self::TeaCache(Arc::new(TeaCachePlan::new(config, steps, model)?)),
            CacheConfig::MagCache(config) => Self::MagCache(Arc::new(MagCachePlan::new(config, steps, model)?)),
        })
    }

    /// The parts of the configuration that are not as they were asked for.
    pub fn warnings(&self) -> &[PlanWarning] {
        match self {
            Self::CacheDit(plan) => &plan.warnings,
            Self::MagCache(plan) => &plan.warnings,
            Self::None | Self::Calibrate | Self::TeaCache(_) => &[],
        }
    }

    /// The backend.
    pub fn backend(&self) -> CacheBackend {
        match self {
            Self::None | Self::Calibrate => CacheBackend::None,
            Self::CacheDit(_) => CacheBackend::CacheDit,
            Self::TeaCache(_) => CacheBackend::TeaCache,
            Self::MagCache(_) => CacheBackend::MagCache,
        }
    }

    /// Every key of the configuration in force, as a response shows it.
    pub fn effective_config(&self) -> Map<String, Value> {
        match self {
            Self::None | Self::Calibrate => Map::new(),
            Self::CacheDit(plan) => plan.config.effective(plan.mask.as_deref(), plan.separate_cfg),
            Self::TeaCache(plan) => plan.config.effective(&plan.coefficients),
            Self::MagCache(plan) => plan.config.effective(&plan.ratios),
        }
    }

    /// cache-dit's name for a run that reused this many steps; DBPrune's also has the percentage of
    /// skipped blocks. `None` for other backends.
    pub fn tag(&self, cached_steps: usize, pruned_percent: Option<f64>) -> Option<String> {
        match self {
            Self::CacheDit(plan) => Some(tag::tag(plan, cached_steps, pruned_percent)),
            Self::None | Self::Calibrate | Self::TeaCache(_) | Self::MagCache(_) => None,
        }
    }

    /// Cond and uncond run as two forwards per step.
    pub fn separate_cfg(&self) -> bool {
        match self {
            Self::None | Self::Calibrate => false,
            Self::CacheDit(plan) => plan.separate_cfg,
            Self::TeaCache(plan) => plan.separate_cfg,
            Self::MagCache(plan) => plan.separate_cfg,
        }
    }

    /// Of two forwards per step, the unconditional one has to come first.
    pub fn uncond_comes_first(&self) -> bool {
        matches!(self, Self::CacheDit(plan) if plan.separate_cfg && plan.config.cfg_compute_first)
    }

    /// All block lists of the model share one context.
    pub(crate) fn joins_lists(&self) -> bool {
        !matches!(self, Self::CacheDit(plan) if plan.config.block_lists == BlockLists::Separate)
    }

    /// The first list whose streams are looked at as one.
    pub(crate) fn streams_join_at(&self) -> Option<usize> {
        match self {
            Self::CacheDit(plan) => plan.streams_join_at,
            Self::None | Self::Calibrate | Self::TeaCache(_) | Self::MagCache(_) => None,
        }
    }

    /// The most bytes of state one image can come to hold for a context of `blocks` blocks, whose steps may have
    /// a second forward.
    pub(crate) fn state_bytes(&self, blocks: usize, stream_bytes: usize, has_second_forwards: bool) -> usize {
        // What a second forward takes from the first.
        let skips = match self {
            Self::CacheDit(plan) if has_second_forwards => plan.skips(blocks),
            Self::TeaCache(_) | Self::MagCache(_) if has_second_forwards => 1,
            _ => 0,
        };
        let copies = match self {
            Self::None => 0,
            // Modulated input, output and residual, the last in f32.
            Self::Calibrate => 4,
            Self::CacheDit(plan) => plan.stored_streams(blocks),
            // The modulated input and the residual; the residual alone.
            Self::TeaCache(_) => 2,
            Self::MagCache(_) => 1,
        };
        (copies + skips) * StepClock::branches(self.separate_cfg()).len() * stream_bytes
    }
}

/// A part of a configuration that is not as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanWarning {
    /// The key.
    pub key: &'static str,
    /// Machine-readable reason in snake case.
    pub code: &'static str,
    /// What is done instead, and why.
    pub message: String,
}

impl PlanWarning {
    /// A key of the server's that does not fit the request; `reason` says why.
    fn left_out(key: &'static str, reason: &str) -> Self {
        let message = format!("{reason}; the key is the server's own (--cache-config), and was left out");
        Self { key, code: "cache_key_left_out", message }
    }
}

/// The number of steps that a configuration repeats, if it fits.
fn check_steps(
    repeated: Option<usize>,
    steps: usize,
    inherited: Inherited,
    warnings: &mut Vec<PlanWarning>,
) -> Result<Option<usize>, ConfigError> {
    let Some(repeated) = repeated.filter(|repeated| *repeated != steps) else { return Ok(repeated) };
    let message = format!("`num_inference_steps` is {repeated}, but the request has {steps} steps");
    if !inherited.num_inference_steps {
        return Err(ConfigError::at("num_inference_steps", message));
    }
    warnings.push(PlanWarning::left_out("num_inference_steps", &message));
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn coefficients_and_ratios_come_from_the_request_or_the_model() {
        let facts = ModelFacts { blocks: &[8], ..Default::default() };
        for (backend, key) in [(CacheBackend::TeaCache, "coefficients"), (CacheBackend::MagCache, "mag_ratios")] {
            let config = CacheConfig::parse(backend, &Map::new()).unwrap();
            assert_eq!(CachePlan::new(&config, 4, facts).unwrap_err().key.as_deref(), Some(key));
            let calibrated = ModelFacts {
                tea_cache_coefficients: Some([1.0, 2.0, 3.0, 4.0, 5.0]),
                mag_ratios: Some(&[1.0, 1.1, 1.2]),
                ..facts
            };
            let effective = CachePlan::new(&config, 5, calibrated).unwrap().effective_config();
            let expected = json!({"coefficients": [1.0, 2.0, 3.0, 4.0, 5.0], "mag_ratios": [1.0, 1.0, 1.1, 1.2, 1.2]});
            assert_eq!(effective[key], expected[key]);
        }
    }
}
