//! The plan of backend `cache_dit`: DBCache or DBPrune.

use super::{ModelFacts, PlanWarning, check_steps};
use crate::clock::StepClock;
use crate::config::{BlockLists, CacheDitConfig, ConfigError, MaskMode, StepsMask};
use crate::steps_mask;

/// The checked options of backend `cache_dit`.
#[derive(Debug)]
pub struct CacheDitPlan {
    pub(crate) config: CacheDitConfig,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) separate_cfg: bool,
    /// See [`ModelFacts::streams_join_at`].
    pub(super) streams_join_at: Option<usize>,
    pub(super) warnings: Vec<PlanWarning>,
}

impl CacheDitPlan {
    pub(super) fn new(config: &CacheDitConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        let block_lists = if model.streams_join_at.is_some() { BlockLists::Separate } else { config.block_lists };
        let blocks = fewest_blocks(block_lists, model.blocks);
        let those = those_blocks(block_lists, model.blocks, blocks);
        check_blocks(config, blocks, &those)?;
        check_prune(config, blocks, &those)?;
        check_long_skips(config, blocks, model.long_skips)?;
        check_guidance(config, model.separate_cfg)?;
        let mut warnings = Vec::new();
        let repeated = check_steps(config.num_inference_steps, steps, config.inherited, &mut warnings)?;
        let mut config = CacheDitConfig { num_inference_steps: repeated, block_lists, ..config.clone() };
        if let Some(MisfitMask { key, reason }) = mask_misfit(&config, steps) {
            if !config.inherited.steps_mask {
                return Err(ConfigError::at(key, reason));
            }
            warnings.push(PlanWarning::left_out(key, &reason));
            config.repeated_mask = None;
            config.steps_mask = config.steps_mask.filter(|mask| matches!(mask, StepsMask::Policy(_)));
        }
        let mask = resolve_mask(config.steps_mask.as_ref(), steps);
        warnings.extend(mask.as_deref().and_then(|mask| short_mask(mask, steps, config.mask_mode)));
        let starts_reused = mask.as_ref().is_some_and(|mask| mask.first() == Some(&false));
        if config.mask_mode == MaskMode::Static && starts_reused {
            let message = "the steps mask starts with 0 under a static policy, but the first step has nothing to reuse";
            return Err(ConfigError::at("steps_computation_mask", message));
        }
        let ModelFacts { separate_cfg, streams_join_at, .. } = model;
        Ok(Self { config, mask, separate_cfg, streams_join_at, warnings })
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
        // A reference for every stored effect.
        self.skips(blocks) * (1 + effect)
    }

    /// Runs of blocks of a list that one step can skip.
    pub(super) fn skips(&self, blocks: usize) -> usize {
        match &self.config.prune {
            None => 1,
            Some(_) => blocks - self.config.fn_compute_blocks - self.config.bn_compute_blocks,
        }
    }
}

/// Blocks of the smallest context.
fn fewest_blocks(lists: BlockLists, blocks: &[usize]) -> usize {
    match lists {
        BlockLists::Joined => blocks.iter().sum(),
        BlockLists::Separate => blocks.iter().copied().min().unwrap_or(0),
    }
}

/// What has no more blocks, as part of a message.
fn those_blocks(lists: BlockLists, blocks: &[usize], fewest: usize) -> String {
    match (lists, blocks) {
        (BlockLists::Joined, _) | (BlockLists::Separate, [] | [_]) => format!("the model has {fewest} blocks"),
        (BlockLists::Separate, _) => {
            let counts: Vec<_> = blocks.iter().map(usize::to_string).collect();
            format!("blocks are counted in each list of the model, and those have {}", counts.join(" and "))
        }
    }
}

fn check_blocks(config: &CacheDitConfig, fewest: usize, those: &str) -> Result<(), ConfigError> {
    let (head, tail) = (config.fn_compute_blocks, config.bn_compute_blocks);
    if head > fewest {
        let message = format!("`Fn_compute_blocks` is {head}, but {those}");
        return Err(ConfigError::at("Fn_compute_blocks", message));
    }
    if tail > fewest - head {
        let message =
            format!("`Fn_compute_blocks` + `Bn_compute_blocks` is {}, but {those}", head.saturating_add(tail));
        return Err(ConfigError::at("Bn_compute_blocks", message));
    }
    Ok(())
}

fn check_prune(config: &CacheDitConfig, fewest: usize, those: &str) -> Result<(), ConfigError> {
    let Some(prune) = &config.prune else { return Ok(()) };
    let ids = prune.non_prune_blocks.len();
    if ids > fewest {
        let message = format!("`non_prune_block_ids` has {ids} entries, but {those}");
        return Err(ConfigError::at("non_prune_block_ids", message));
    }
    if let Some(block) = prune.non_prune_blocks.iter().find(|block| **block >= fewest) {
        let message = format!("`non_prune_block_ids` names block {block}, but {those}");
        return Err(ConfigError::at("non_prune_block_ids", message));
    }
    Ok(())
}

/// Refuses to run a block without the block that leaves it a skip. cache-dit takes whatever skip was left last, which is the
/// right one only where as many of the last blocks run as of the first.
fn check_long_skips(config: &CacheDitConfig, blocks: usize, skips: usize) -> Result<(), ConfigError> {
    let (head, tail) = (config.fn_compute_blocks, config.bn_compute_blocks);
    if let Some(prune) = &config.prune {
        let may_be_skipped = |block: &usize| *block < blocks - tail && !prune.non_prune_blocks.contains(block);
        let Some(block) = (head..skips).find(may_be_skipped) else { return Ok(()) };
        let message = format!(
            "DBPrune must not skip block {block}: the first {skips} blocks of this model each leave a skip to a later \
             block. Set `Fn_compute_blocks` to at least {skips}, or list them in `non_prune_block_ids`"
        );
        return Err(ConfigError::at("Fn_compute_blocks", message));
    }
    if tail.min(skips) > head && head + tail < blocks {
        let message = format!(
            "`Bn_compute_blocks` is {tail} and `Fn_compute_blocks` {head}, but each of the last {skips} blocks of this \
             model needs the skip that its counterpart among the first {skips} leaves; `Bn_compute_blocks` can be at most \
             `Fn_compute_blocks`, unless that is at least {skips}"
        );
        return Err(ConfigError::at("Bn_compute_blocks", message));
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

/// A steps mask that does not fit a request of this many steps.
struct MisfitMask {
    key: &'static str,
    reason: String,
}

/// What is wrong with the mask. One that was asked for may be shorter than the steps, as in cache-dit; one of the
/// server's was made for another number of steps then.
fn mask_misfit(config: &CacheDitConfig, steps: usize) -> Option<MisfitMask> {
    let misfit = |key, reason: String| Some(MisfitMask { key, reason });
    match &config.steps_mask {
        Some(StepsMask::Explicit(mask))
            if mask.len() > steps || (config.inherited.steps_mask && mask.len() < steps) =>
        {
            let entries = mask.len();
            let reason = format!(
                "`steps_computation_mask` has {entries} entries, but the request has {steps} steps, one for each"
            );
            return misfit("steps_computation_mask", reason);
        }
        Some(StepsMask::Bins { compute, cache }) => {
            let total = compute.iter().chain(cache).fold(0, |sum: usize, length| sum.saturating_add(*length));
            if total != steps {
                let reason = format!(
                    "`scm_compute_bins` and `scm_cache_bins` add up to {total} steps, but the request has {steps}"
                );
                return misfit("scm_compute_bins", reason);
            }
        }
        _ => {}
    }
    let mask = resolve_mask(config.steps_mask.as_ref(), steps);
    if config.repeated_mask.is_some() && config.repeated_mask != mask {
        let reason = "`steps_computation_mask` is not the mask that the other keys give; leave one of them out";
        return misfit("steps_computation_mask", reason.to_owned());
    }
    None
}

fn resolve_mask(source: Option<&StepsMask>, steps: usize) -> Option<Vec<bool>> {
    match source? {
        StepsMask::Policy(policy) => policy.mask(steps),
        StepsMask::Explicit(mask) => Some(mask.clone()),
        StepsMask::Bins { compute, cache } => Some(steps_mask::emit(compute, cache, steps)),
    }
}

fn short_mask(mask: &[bool], steps: usize, mode: MaskMode) -> Option<PlanWarning> {
    let entries = mask.len();
    if entries >= steps {
        return None;
    }
    let rest = match mode {
        MaskMode::Dynamic => "the steps past its end are decided by their distance",
        MaskMode::Static => "the steps past its end are reused, as `scm_steps_policy` is \"static\"",
    };
    let message = format!("`steps_computation_mask` has {entries} entries, and the request has {steps} steps; {rest}");
    Some(PlanWarning { key: "steps_computation_mask", code: "mask_shorter_than_steps", message })
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
            (json!({"scm_compute_bins": [4, 1], "scm_cache_bins": [3, 21]}), "scm_compute_bins"),
            (json!({"steps_computation_mask": vec![1; 29]}), "steps_computation_mask"),
            (json!({"steps_computation_mask": [0, 1], "scm_steps_policy": "static"}), "steps_computation_mask"),
            (json!({"cache_type": "DBPrune", "non_prune_block_ids": [8]}), "non_prune_block_ids"),
            (json!({"cache_type": "DBPrune", "non_prune_block_ids": vec![0; 9]}), "non_prune_block_ids"),
        ] {
            let error = plan(keys.clone(), 28, 8).unwrap_err();
            assert_eq!(error.key.as_deref(), Some(key), "{keys}: {error}");
        }
    }

    #[test]
    fn no_block_runs_without_the_one_that_leaves_it_a_skip() {
        let check = |keys: Value| {
            let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap()).unwrap();
            let facts = ModelFacts { blocks: &[12], long_skips: 5, ..Default::default() };
            CachePlan::new(&config, 28, facts).map_err(|error| error.key.unwrap())
        };
        let blocks = |head: usize, tail: usize| json!({"Fn_compute_blocks": head, "Bn_compute_blocks": tail});
        for (head, tail) in [(1, 0), (1, 1), (4, 2), (4, 4), (5, 6), (6, 6), (5, 7), (1, 11)] {
            assert!(check(blocks(head, tail)).is_ok(), "{head}, {tail}");
        }
        for (head, tail) in [(1, 2), (4, 5), (4, 6), (1, 10)] {
            assert_eq!(check(blocks(head, tail)).unwrap_err(), "Bn_compute_blocks", "{head}, {tail}");
        }
        for (head, ids) in [(5, json!([])), (2, json!([2, 3, 4])), (1, json!([1, 2, 3, 4, 9]))] {
            let keys = json!({"cache_type": "DBPrune", "Fn_compute_blocks": head, "non_prune_block_ids": ids});
            assert!(check(keys).is_ok(), "{head}");
        }
        for (head, ids) in [(4, json!([])), (2, json!([2, 4]))] {
            let keys = json!({"cache_type": "DBPrune", "Fn_compute_blocks": head, "non_prune_block_ids": ids});
            assert_eq!(check(keys).unwrap_err(), "Fn_compute_blocks", "{head}");
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
        assert!(error.message.ends_with("in each list of the model, and those have 19 and 38"), "{error}");
    }

    #[test]
    fn a_configuration_in_force_can_be_asked_for_again() {
        for keys in [
            json!({}),
            json!({"scm_steps_mask_policy": "fast", "enable_taylorseer": true, "taylorseer_order": 2}),
            json!({"scm_compute_bins": [4, 1], "scm_cache_bins": [3, 20], "scm_steps_policy": "static"}),
            json!({"steps_computation_mask": [1, 0, 1], "enable_foca": true, "max_cached_steps": 3}),
            json!({"cache_type": "DBPrune"}),
            json!({"cache_type": "DBPrune", "non_prune_block_ids": [2], "enable_dynamic_prune_threshold": true}),
            json!({"cache_type": "DBPrune", "max_dynamic_prune_threshold": 0.5, "enable_foca": true}),
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
    fn masks_of_another_length_are_told_with_both_numbers() {
        let ones = |length: usize| json!({"steps_computation_mask": vec![1; length]});
        let error = plan(ones(11), 10, 8).unwrap_err();
        assert!(error.message.contains("11 entries") && error.message.contains("10 steps"), "{error}");
        assert!(plan(ones(10), 10, 8).unwrap().warnings().is_empty());
        let short = plan(ones(9), 10, 8).unwrap();
        assert_eq!(short.effective_config()["steps_computation_mask"], json!(vec![1; 9]));
        let [warning] = short.warnings() else { panic!("{:?}", short.warnings()) };
        assert_eq!((warning.key, warning.code), ("steps_computation_mask", "mask_shorter_than_steps"));
        let told = ["9 entries", "10 steps", "decided by their distance"];
        assert!(told.iter().all(|words| warning.message.contains(words)), "{}", warning.message);
        for bins in [json!([2, 1]), json!([4, 4])] {
            let error = plan(json!({"scm_compute_bins": bins, "scm_cache_bins": [3, 3]}), 10, 8).unwrap_err();
            let total = bins.as_array().unwrap().iter().map(|length| length.as_u64().unwrap()).sum::<u64>() + 6;
            assert!(error.message.contains(&format!("{total} steps")) && error.message.contains("has 10"), "{error}");
        }
    }

    /// A plan of a server's configuration and what its client adds to it.
    fn inherited(server: Value, request: Value, steps: usize) -> Result<CachePlan, ConfigError> {
        let (server, request) = (server.as_object().unwrap(), request.as_object().unwrap());
        let config = CacheConfig::parse(CacheBackend::CacheDit, &CacheConfig::merge(server, request))?;
        let facts = ModelFacts { blocks: &[8], ..Default::default() };
        CachePlan::new(&config.inherited_but(request), steps, facts)
    }

    #[test]
    fn a_servers_mask_that_does_not_fit_is_left_out() {
        for (server, key, fits) in [
            (json!({"steps_computation_mask": [1, 1, 0, 1]}), "steps_computation_mask", 4),
            (json!({"scm_compute_bins": [2, 1], "scm_cache_bins": [1]}), "scm_compute_bins", 4),
            (json!({"num_inference_steps": 4}), "num_inference_steps", 4),
            (json!({"num_inference_steps": 4, "scm_steps_mask_policy": "fast"}), "num_inference_steps", 4),
        ] {
            assert_eq!(inherited(server.clone(), json!({}), fits).unwrap().warnings(), [], "{server}");
            for steps in [3, 5] {
                let plan = inherited(server.clone(), json!({"Fn_compute_blocks": 2}), steps).unwrap();
                let [warning] = plan.warnings() else { panic!("{server}: {:?}", plan.warnings()) };
                assert_eq!((warning.key, warning.code), (key, "cache_key_left_out"));
                assert!(warning.message.contains(&format!("{steps} steps")) || warning.message.ends_with("left out"));
                let config = plan.effective_config();
                assert_eq!((&config[key], &config["steps_computation_mask"]), (&Value::Null, &Value::Null));
            }
        }
        // The policy still holds where only the mask it once gave does not.
        let repeated = json!({"scm_steps_mask_policy": "fast", "steps_computation_mask": [1, 1, 0, 1]});
        assert!(inherited(repeated.clone(), json!({}), 4).unwrap().warnings().is_empty());
        let plan = inherited(repeated, json!({}), 8).unwrap();
        assert_eq!(plan.warnings().len(), 1);
        assert_eq!(plan.effective_config()["steps_computation_mask"], json!([1, 1, 1, 0, 1, 0, 0, 1]));
    }

    #[test]
    fn what_the_request_asks_for_itself_is_not_left_out() {
        let server = json!({"steps_computation_mask": [1, 1, 0, 1], "num_inference_steps": 5});
        for (request, key) in [
            (json!({"steps_computation_mask": [1, 1, 0, 1, 0, 1]}), "steps_computation_mask"),
            (json!({"scm_compute_bins": [9], "scm_cache_bins": [9]}), "scm_compute_bins"),
            (json!({"num_inference_steps": 4}), "num_inference_steps"),
        ] {
            assert_eq!(inherited(server.clone(), request, 5).unwrap_err().key.as_deref(), Some(key));
        }
    }

    #[test]
    fn a_policy_without_a_mask_for_these_steps_shows_null() {
        let config = plan(json!({"scm_steps_mask_policy": "fast"}), 7, 8).unwrap().effective_config();
        assert_eq!(config["steps_computation_mask"], Value::Null);
        assert_eq!(config["scm_steps_mask_policy"], "fast");
    }
}
