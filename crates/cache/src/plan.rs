//! A configuration made concrete for one request on one model.
//!
//! Parsing cannot know the number of steps and of blocks; a plan does. It holds the steps mask in
//! force and is proof that the configuration fits: everything after it can rely on `Fn + Bn` being
//! at most the number of blocks, and on a static mask starting with a computed step.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::{CacheBackend, CacheConfig, CacheDitConfig, CalibratorConfig, CalibratorKind, ConfigError};
use crate::config::{MaskMode, StepsMask};
use crate::steps_mask;

/// What the cache needs to know about a request's model.
#[derive(Debug, Clone, Copy)]
pub struct ModelShape<'a> {
    /// Number of blocks of every block list.
    pub blocks: &'a [usize],
    /// Cond and uncond run as two forwards per step in this request.
    pub separate_cfg: bool,
}

/// A checked configuration of one request.
#[derive(Debug, Clone)]
pub enum CachePlan {
    /// Every block of every step is computed.
    None,
    /// DBCache.
    CacheDit(Arc<CacheDitPlan>),
}

/// The checked options of backend `cache_dit`.
#[derive(Debug)]
pub struct CacheDitPlan {
    pub(crate) config: CacheDitConfig,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) separate_cfg: bool,
}

impl CachePlan {
    /// Fits `config` to a request of `steps` steps.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that does not fit the steps or the model.
    pub fn new(config: &CacheConfig, steps: usize, model: ModelShape<'_>) -> Result<Self, ConfigError> {
        match config {
            CacheConfig::None => Ok(Self::None),
            CacheConfig::CacheDit(config) => Ok(Self::CacheDit(Arc::new(CacheDitPlan::new(config, steps, model)?))),
        }
    }

    /// The backend.
    pub fn backend(&self) -> CacheBackend {
        match self {
            Self::None => CacheBackend::None,
            Self::CacheDit(_) => CacheBackend::CacheDit,
        }
    }

    /// Every key of the configuration in force, as a response shows it.
    pub fn effective_config(&self) -> Map<String, Value> {
        match self {
            Self::None => Map::new(),
            Self::CacheDit(plan) => plan.config.effective(plan.mask.as_deref(), plan.separate_cfg),
        }
    }

    /// cache-dit's name for a run that reused `cached_steps` steps; `None` without a cache.
    pub fn tag(&self, cached_steps: usize) -> Option<String> {
        match self {
            Self::None => None,
            Self::CacheDit(plan) => Some(plan.tag(cached_steps)),
        }
    }
}

impl CacheDitPlan {
    fn new(config: &CacheDitConfig, steps: usize, model: ModelShape<'_>) -> Result<Self, ConfigError> {
        check_blocks(config, model.blocks)?;
        check_guidance(config, model.separate_cfg)?;
        if let Some(repeated) = config.num_inference_steps
            && repeated != steps
        {
            let message = format!("`num_inference_steps` is {repeated}, but the request has {steps} steps");
            return Err(ConfigError::at("num_inference_steps", message));
        }
        let mask = resolve_mask(config.steps_mask.as_ref(), steps)?;
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

    /// Predict or reuse the middle blocks' output itself rather than what they added.
    pub(crate) fn stores_output(&self) -> bool {
        self.config.calibrator.is_some_and(|calibrator| !calibrator.residual)
    }

    fn tag(&self, cached_steps: usize) -> String {
        let config = &self.config;
        let limit = |limit: Option<usize>| limit.unwrap_or(0);
        let mut tag = format!(
            "DBCache_F{}B{}_W{}I{}M{}MC{}_R{}",
            config.fn_compute_blocks,
            config.bn_compute_blocks,
            config.max_warmup_steps,
            config.warmup_interval,
            limit(config.max_cached_steps),
            limit(config.max_continuous_cached_steps),
            python_float(config.residual_diff_threshold),
        );
        if let Some(mask) = &self.mask {
            let digits: String = mask.iter().map(|&bit| if bit { '1' } else { '0' }).collect();
            let mode = if config.mask_mode == MaskMode::Static { "static" } else { "dynamic" };
            tag += &format!("_SCM{digits}_{mode}");
        }
        if let Some(steps) = config.num_inference_steps {
            tag += &format!("_N{steps}");
        }
        if let Some(hint) = config.force_refresh_step_hint {
            tag += &format!("_FR{hint}_{}", if config.force_refresh_repeats { "repeat" } else { "once" });
        }
        tag += &format!("_CFG{}", u8::from(self.separate_cfg));
        tag += &match config.calibrator {
            None => "_T0O0".to_owned(),
            Some(CalibratorConfig { kind: CalibratorKind::TaylorSeer(order), .. }) => format!("_T1O{order}"),
            Some(CalibratorConfig { kind: CalibratorKind::FoCa, .. }) => "_FoCa".to_owned(),
        };
        if cached_steps > 0 {
            tag += &format!("_S{cached_steps}");
        }
        tag
    }
}

fn check_blocks(config: &CacheDitConfig, blocks: &[usize]) -> Result<(), ConfigError> {
    let fewest = blocks.iter().copied().min().unwrap_or(0);
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
    if separate_cfg && config.force_refresh_step_hint.is_some_and(|forwards| !forwards.is_multiple_of(2)) {
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

/// A float as Python prints it: `0.08`, `1.0`, `1e-05`.
fn python_float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(keys: Value, steps: usize, blocks: usize) -> Result<CachePlan, ConfigError> {
        let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap())?;
        CachePlan::new(&config, steps, ModelShape { blocks: &[blocks], separate_cfg: false })
    }

    #[test]
    fn tags_are_those_of_cache_dit() {
        let tag = |keys, steps, cached| plan(keys, steps, 8).unwrap().tag(cached).unwrap();
        assert_eq!(tag(json!({"enable_taylorseer": true}), 28, 18), "DBCache_F1B0_W4I1M0MC3_R0.24_CFG0_T1O1_S18");
        assert_eq!(
            tag(
                json!({"max_continuous_cached_steps": -1, "residual_diff_threshold": 1, "Fn_compute_blocks": 4}),
                28,
                0
            ),
            "DBCache_F4B0_W4I1M0MC0_R1.0_CFG0_T0O0"
        );
        assert_eq!(
            tag(
                json!({
                    "Fn_compute_blocks": 4, "residual_diff_threshold": 0.12, "max_continuous_cached_steps": -1,
                    "scm_steps_mask_policy": "fast", "num_inference_steps": 28, "force_refresh_step_hint": 9,
                    "enable_taylorseer": true, "taylorseer_order": 2
                }),
                28,
                0
            ),
            "DBCache_F4B0_W4I1M0MC0_R0.12_SCM1111110100010000100000100001_dynamic_N28_FR9_once_CFG0_T1O2"
        );
    }

    #[test]
    fn python_writes_small_floats_with_two_digit_exponents() {
        assert_eq!(python_float(0.08), "0.08");
        assert_eq!(python_float(1.0), "1.0");
        assert_eq!(python_float(1e-5), "1e-05");
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
        ] {
            let error = plan(keys.clone(), 28, 8).unwrap_err();
            assert_eq!(error.key.as_deref(), Some(key), "{keys}: {error}");
        }
    }

    #[test]
    fn a_policy_without_a_mask_for_these_steps_shows_null() {
        let config = plan(json!({"scm_steps_mask_policy": "fast"}), 7, 8).unwrap().effective_config();
        assert_eq!(config["steps_computation_mask"], Value::Null);
        assert_eq!(config["scm_steps_mask_policy"], "fast");
    }
}
