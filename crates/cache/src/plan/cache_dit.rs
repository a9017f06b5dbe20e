//! The plan of backend `cache_dit`: DBCache or DBPrune.

use super::{ModelFacts, check_steps};
use crate::clock::StepClock;
use crate::config::{BlockLists, CacheDitConfig, ConfigError, MaskMode, StepsMask};
use crate::steps_mask;

/// The checked options of backend `cache_dit`.
#[derive(Debug)]
pub struct CacheDitPlan {
    pub(crate) config: CacheDitConfig,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) separate_cfg: bool,
}

impl CacheDitPlan {
    pub(super) fn new(config: &CacheDitConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        let blocks = fewest_blocks(config.block_lists, model.blocks);
        check_blocks(config, blocks)?;
        check_prune(config, blocks)?;
        check_guidance(config, model.separate_cfg)?;
        check_steps(config.num_inference_steps, steps)?;
        let mask = resolve_mask(config.steps_mask.as_ref(), steps)?;
        if config.repeated_mask.is_some() && config.repeated_mask != mask {
            let message = "`steps_computation_mask` is not the mask that the other keys give; leave one of them out";
            return Err(ConfigError::at("steps_computation_mask", message));
        }
        let starts_reused = mask.as_ref().is_some_and(|mask| mask.first() == Some(&false));
        if config.mask_mode == MaskMode::Static && starts_reused {
            let message = "the steps mask starts with 0 under a static policy, but the first step has nothing to reuse";
            return Err(ConfigError::at("steps_computation_mask", message));
        }
        Ok(Self { config: config.clone(), mask, separate_cfg: model.separate_cfg })
    }

    /// Warm-up steps in force: a mask shortens them to its leading run.
    pub(crate) fn warmup_steps(&self) -> usize {
        let leading = |mask: &Vec<bool>| mask.iter().take_while(|bit| **bit).count();
        self.mask.as_ref().map_or(usize::MAX, leading).min(self.config.max_warmup_steps)
    }

    pub(crate) fn clock(&self) -> StepClock {
        StepClock::new(self.separate_cfg, self.config.cfg_compute_first, self.config.refresh)
    }

    /// Copies of the streams that one branch of a list comes to hold.
    pub(super) fn stored_streams(&self, blocks: usize) -> usize {
        let effect = self.config.calibrator.map_or(1, |calibrator| calibrator.kind.stored_values());
        let runs = match &self.config.prune {
            None => 1,
            Some(_) => blocks - self.config.fn_compute_blocks - self.config.bn_compute_blocks,
        };
        // A reference beside every effect.
        runs * (1 + effect)
    }
}

/// Blocks of the smallest context.
fn fewest_blocks(lists: BlockLists, blocks: &[usize]) -> usize {
    match lists {
        BlockLists::Joined => blocks.iter().sum(),
        BlockLists::Separate => blocks.iter().copied().min().unwrap_or(0),
    }
}

fn check_blocks(config: &CacheDitConfig, fewest: usize) -> Result<(), ConfigError> {
    let (head, tail) = (config.fn_compute_blocks, config.bn_compute_blocks);
    if head > fewest {
        let message = format!("`Fn_compute_blocks` is {head}, but the model has {fewest} blocks");
        return Err(ConfigError::at("Fn_compute_blocks", message));
    }
    if tail > fewest - head {
        let message = format!(
            "`Fn_compute_blocks` + `Bn_compute_blocks` is {}, but the model has {fewest} blocks",
            head.saturating_add(tail)
        );
        return Err(ConfigError::at("Bn_compute_blocks", message));
    }
    Ok(())
}

fn check_prune(config: &CacheDitConfig, fewest: usize) -> Result<(), ConfigError> {
    let Some(prune) = &config.prune else { return Ok(()) };
    if let Some(block) = prune.non_prune_blocks.iter().find(|block| **block >= fewest) {
        let message = format!("`non_prune_block_ids` names block {block}, but the model has {fewest} blocks");
        return Err(ConfigError::at("non_prune_block_ids", message));
    }
    Ok(())
}

fn check_guidance(config: &CacheDitConfig, separate_cfg: bool) -> Result<(), ConfigError> {
    let asked = config.enable_separate_cfg.unwrap_or(separate_cfg);
    if asked != separate_cfg {
        let runs = if separate_cfg { "two forwards" } else { "one forward" };
        let message = format!("`enable_separate_cfg` is {asked}, but this request runs {runs} per step");
        return Err(ConfigError::at("enable_separate_cfg", message));
    }
    if separate_cfg && config.cfg_compute_first && config.cfg_diff_compute_separate {
        let message = "`cfg_diff_compute_separate` cannot be true together with `cfg_compute_first`";
        return Err(ConfigError::at("cfg_diff_compute_separate", message));
    }
    if separate_cfg && config.refresh.is_some_and(|refresh| !refresh.forwards.is_multiple_of(2)) {
        let message = "`force_refresh_step_hint` counts forwards; this request runs two per step, so it must be even";
        return Err(ConfigError::at("force_refresh_step_hint", message));
    }
    Ok(())
}

fn resolve_mask(source: Option<&StepsMask>, steps: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    match source {
        None => Ok(None),
        Some(StepsMask::Policy(policy)) => Ok(policy.mask(steps)),
        Some(StepsMask::Explicit(mask)) => Ok(Some(mask.clone())),
        Some(StepsMask::Bins { compute, cache }) => {
            let total = compute.iter().chain(cache).fold(0, |sum: usize, length| sum.saturating_add(*length));
            if total < steps {
                let message = format!("the bins add up to {total} steps, but the request has {steps}");
                return Err(ConfigError::at("scm_compute_bins", message));
            }
            Ok(Some(steps_mask::emit(compute, cache, steps)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{CacheBackend, CacheConfig, CachePlan};

    fn plan(keys: Value, steps: usize, blocks: usize) -> Result<CachePlan, ConfigError> {
        let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap())?;
        CachePlan::new(&config, steps, ModelFacts { blocks: &[blocks], ..Default::default() })
    }

    #[test]
    fn what_does_not_fit_the_model_or_the_request_is_refused() {
        for (keys, key) in [
            (json!({"Fn_compute_blocks": 9}), "Fn_compute_blocks"),
            (json!({"Fn_compute_blocks": 6, "Bn_compute_blocks": 4}), "Bn_compute_blocks"),
            (json!({"num_inference_steps": 27}), "num_inference_steps"),
            (json!({"enable_separate_cfg": true}), "enable_separate_cfg"),
            (json!({"scm_compute_bins": [4, 4], "scm_cache_bins": [4]}), "scm_compute_bins"),
            (json!({"steps_computation_mask": [0, 1], "scm_steps_policy": "static"}), "steps_computation_mask"),
            (json!({"cache_type": "DBPrune", "non_prune_block_ids": [8]}), "non_prune_block_ids"),
        ] {
            let error = plan(keys.clone(), 28, 8).unwrap_err();
            assert_eq!(error.key.as_deref(), Some(key), "{keys}: {error}");
        }
    }

    #[test]
    fn separate_block_lists_must_each_have_the_blocks() {
        let plan = |keys: Value| {
            let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap())?;
            CachePlan::new(&config, 28, ModelFacts { blocks: &[19, 38], ..Default::default() })
        };
        assert!(plan(json!({"Fn_compute_blocks": 30})).is_ok());
        let error = plan(json!({"Fn_compute_blocks": 30, "block_lists": "separate"})).unwrap_err();
        assert_eq!(error.key.as_deref(), Some("Fn_compute_blocks"));
        assert!(error.message.contains("19 blocks"), "{error}");
    }

    #[test]
    fn a_configuration_in_force_can_be_asked_for_again() {
        for keys in [
            json!({}),
            json!({"scm_steps_mask_policy": "fast", "enable_taylorseer": true, "taylorseer_order": 2}),
            json!({"scm_compute_bins": [4, 1], "scm_cache_bins": [3, 20], "scm_steps_policy": "static"}),
            json!({"steps_computation_mask": [1, 0, 1], "enable_foca": true, "max_cached_steps": 3}),
            json!({"cache_type": "DBPrune", "non_prune_block_ids": [2], "enable_dynamic_prune_threshold": true}),
            json!({"block_lists": "separate"}),
        ] {
            let once = plan(keys.clone(), 28, 8).unwrap().effective_config();
            let again = plan(Value::Object(once.clone()), 28, 8).unwrap().effective_config();
            assert_eq!(once, again, "{keys}");
        }
        let other = json!({"scm_steps_mask_policy": "fast", "steps_computation_mask": [1]});
        assert_eq!(plan(other, 28, 8).unwrap_err().key.as_deref(), Some("steps_computation_mask"));
    }

    #[test]
    fn a_policy_without_a_mask_for_these_steps_shows_null() {
        let config = plan(json!({"scm_steps_mask_policy": "fast"}), 7, 8).unwrap().effective_config();
        assert_eq!(config["steps_computation_mask"], Value::Null);
        assert_eq!(config["scm_steps_mask_policy"], "fast");
    }
}
