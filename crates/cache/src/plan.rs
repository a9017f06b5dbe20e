//! A configuration made concrete for one request on one model.
//!
//! Parsing cannot know the number of steps and of blocks; a plan does. It holds the steps mask in
//! force and is proof that the configuration fits: everything after it can rely on `Fn + Bn` being
//! at most the number of blocks, and on a static mask starting with a computed step.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::clock::StepClock;
use crate::config::{
    CacheBackend, CacheConfig, CacheDitConfig, CalibratorConfig, CalibratorKind, ConfigError, MagCacheConfig, MaskMode,
    StepsMask, TEA_CACHE_COEFFICIENTS, TeaCacheConfig,
};
use crate::report::ContextReport;
use crate::session::ListShape;
use crate::steps_mask;

/// What the cache needs to know about a request's model.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelFacts<'a> {
    /// Number of blocks of every block list.
    pub blocks: &'a [usize],
    /// Cond and uncond run as two forwards per step in this request.
    pub separate_cfg: bool,
    /// The model's own rescaling polynomial for TeaCache, highest degree first.
    pub tea_cache_coefficients: Option<[f64; TEA_CACHE_COEFFICIENTS]>,
    /// The model's own magnitude ratios for MagCache, by step of some run.
    pub mag_ratios: Option<&'a [f64]>,
}

/// A checked configuration of one request.
#[derive(Debug, Clone)]
pub enum CachePlan {
    /// Every block of every step is computed.
    None,
    /// Every block of every step is computed, and observed for a calibration.
    Calibrate,
    /// DBCache or DBPrune.
    CacheDit(Arc<CacheDitPlan>),
    /// TeaCache.
    TeaCache(Arc<TeaCachePlan>),
    /// MagCache.
    MagCache(Arc<MagCachePlan>),
}

/// The checked options of backend `cache_dit`.
#[derive(Debug)]
pub struct CacheDitPlan {
    pub(crate) config: CacheDitConfig,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) separate_cfg: bool,
}

/// The checked options of backend `tea_cache`.
#[derive(Debug)]
pub struct TeaCachePlan {
    pub(crate) config: TeaCacheConfig,
    pub(crate) coefficients: [f64; TEA_CACHE_COEFFICIENTS],
    pub(crate) separate_cfg: bool,
    pub(crate) steps: usize,
}

/// The checked options of backend `mag_cache`.
#[derive(Debug)]
pub struct MagCachePlan {
    pub(crate) config: MagCacheConfig,
    /// One per step of the request.
    pub(crate) ratios: Vec<f64>,
    /// Steps below this index are computed.
    pub(crate) retained_steps: usize,
    pub(crate) separate_cfg: bool,
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

    /// cache-dit's name for a run with this report; `None` for other backends.
    pub fn tag(&self, report: &ContextReport) -> Option<String> {
        match self {
            Self::CacheDit(plan) => Some(plan.tag(report)),
            Self::None | Self::Calibrate | Self::TeaCache(_) | Self::MagCache(_) => None,
        }
    }

    /// The most bytes of state one image can come to hold for a block list.
    pub(crate) fn state_bytes(&self, list: ListShape<'_>) -> usize {
        let (copies, separate_cfg) = match self {
            Self::None => (0, false),
            // Modulated input, output and residual, the last in f32.
            Self::Calibrate => (4, false),
            Self::CacheDit(plan) => (plan.stored_streams(list.blocks), plan.separate_cfg),
            // The modulated input and the residual; the residual alone.
            Self::TeaCache(plan) => (2, plan.separate_cfg),
            Self::MagCache(plan) => (1, plan.separate_cfg),
        };
        copies * StepClock::branches(separate_cfg).len() * list.stream_bytes
    }
}

impl CacheDitPlan {
    fn new(config: &CacheDitConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        check_blocks(config, model.blocks)?;
        check_prune(config, model.blocks)?;
        check_guidance(config, model.separate_cfg)?;
        check_steps(config.num_inference_steps, steps)?;
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

    pub(crate) fn clock(&self) -> StepClock {
        StepClock::new(self.separate_cfg, self.config.cfg_compute_first, self.config.refresh)
    }

    /// Copies of the streams that one branch of a list comes to hold.
    fn stored_streams(&self, blocks: usize) -> usize {
        let effect = self.config.calibrator.map_or(1, |calibrator| calibrator.kind.stored_values());
        let runs = match &self.config.prune {
            None => 1,
            Some(_) => blocks - self.config.fn_compute_blocks - self.config.bn_compute_blocks,
        };
        // A reference beside every effect.
        runs * (1 + effect)
    }

    fn tag(&self, report: &ContextReport) -> String {
        let config = &self.config;
        let limit = |limit: Option<usize>| limit.unwrap_or(0);
        let mut tag = format!(
            "{}_F{}B{}_W{}I{}M{}MC{}_R{}",
            if config.prune.is_some() { "DBPrune" } else { "DBCache" },
            config.fn_compute_blocks,
            config.bn_compute_blocks,
            config.max_warmup_steps,
            config.warmup_interval,
            limit(config.max_cached_steps),
            limit(config.max_continuous_cached_steps),
            python_float(config.residual_diff_threshold),
        );
        match report.pruned_blocks {
            Some(blocks) => tag += &format!("_P{}", python_float(blocks.percent())),
            None => tag += &self.tag_of_steps(),
        }
        tag += &match config.calibrator {
            None => "_T0O0".to_owned(),
            Some(CalibratorConfig { kind: CalibratorKind::TaylorSeer(order), .. }) => format!("_T1O{order}"),
            Some(CalibratorConfig { kind: CalibratorKind::FoCa, .. }) => "_FoCa".to_owned(),
        };
        if !report.cached_steps.is_empty() {
            tag += &format!("_S{}", report.cached_steps.len());
        }
        tag
    }

    /// The part of the tag about steps and guidance, which DBPrune's does not have.
    fn tag_of_steps(&self) -> String {
        let config = &self.config;
        let mut tag = String::new();
        if let Some(mask) = &self.mask {
            let digits: String = mask.iter().map(|&bit| if bit { '1' } else { '0' }).collect();
            let mode = if config.mask_mode == MaskMode::Static { "static" } else { "dynamic" };
            tag += &format!("_SCM{digits}_{mode}");
        }
        if let Some(steps) = config.num_inference_steps {
            tag += &format!("_N{steps}");
        }
        if let Some(refresh) = config.refresh {
            tag += &format!("_FR{}_{}", refresh.forwards, if refresh.repeats { "repeat" } else { "once" });
        }
        tag + &format!("_CFG{}", u8::from(self.separate_cfg))
    }
}

impl TeaCachePlan {
    fn new(config: &TeaCacheConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        let Some(coefficients) = config.coefficients.or(model.tea_cache_coefficients) else {
            let message =
                "this model has no `coefficients` of its own; give five, or fit them with `afterimage calibrate`";
            return Err(ConfigError::at("coefficients", message));
        };
        Ok(Self { config: config.clone(), coefficients, separate_cfg: model.separate_cfg, steps })
    }
}

impl MagCachePlan {
    fn new(config: &MagCacheConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        check_steps(config.num_inference_steps, steps)?;
        let Some(ratios) = config.ratios.as_deref().or(model.mag_ratios) else {
            let message =
                "this model has no `mag_ratios` of its own; give some, or measure them with `afterimage calibrate`";
            return Err(ConfigError::at("mag_ratios", message));
        };
        Ok(Self {
            config: config.clone(),
            ratios: resample(ratios, steps),
            retained_steps: (config.retention_ratio * steps as f64 + 0.5) as usize,
            separate_cfg: model.separate_cfg,
        })
    }
}

/// The value at the nearest place of a run of another length; a single step takes the last. Places
/// are computed in f32, which decides some ties, as in the reference.
fn resample(ratios: &[f64], steps: usize) -> Vec<f64> {
    let last = ratios.len() - 1;
    if steps == 1 {
        return vec![ratios[last]];
    }
    let scale = (last as f64 / (steps - 1) as f64) as f32;
    (0..steps).map(|step| ratios[((step as f32 * scale).round_ties_even() as usize).min(last)]).collect()
}

fn check_steps(repeated: Option<usize>, steps: usize) -> Result<(), ConfigError> {
    match repeated {
        Some(repeated) if repeated != steps => {
            let message = format!("`num_inference_steps` is {repeated}, but the request has {steps} steps");
            Err(ConfigError::at("num_inference_steps", message))
        }
        _ => Ok(()),
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

fn check_prune(config: &CacheDitConfig, blocks: &[usize]) -> Result<(), ConfigError> {
    let Some(prune) = &config.prune else { return Ok(()) };
    let fewest = blocks.iter().copied().min().unwrap_or(0);
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
        CachePlan::new(&config, steps, ModelFacts { blocks: &[blocks], ..Default::default() })
    }

    #[test]
    fn tags_are_those_of_cache_dit() {
        let tag = |keys, steps, cached| {
            let mut report = ContextReport::new("all");
            report.cached_steps = (0..cached).collect();
            plan(keys, steps, 8).unwrap().tag(&report).unwrap()
        };
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
            (json!({"cache_type": "DBPrune", "non_prune_block_ids": [8]}), "non_prune_block_ids"),
        ] {
            let error = plan(keys.clone(), 28, 8).unwrap_err();
            assert_eq!(error.key.as_deref(), Some(key), "{keys}: {error}");
        }
    }

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

    #[test]
    fn places_equal_the_references() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/cache/tea_cache.json");
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in fixture["resampled"].as_array().unwrap() {
            let length = |key: &str| case[key].as_u64().unwrap() as usize;
            let places: Vec<f64> = (0..length("from")).map(|place| place as f64).collect();
            let expected: Vec<f64> = case["indices"].as_array().unwrap().iter().map(|i| i.as_f64().unwrap()).collect();
            assert_eq!(resample(&places, length("to")), expected, "{} to {}", length("from"), length("to"));
        }
    }

    #[test]
    fn ratios_are_taken_from_the_nearest_place() {
        assert_eq!(resample(&[1.0, 2.0, 3.0], 3), [1.0, 2.0, 3.0]);
        assert_eq!(resample(&[1.0, 2.0, 3.0], 2), [1.0, 3.0]);
        assert_eq!(resample(&[1.0, 2.0, 3.0], 1), [3.0]);
        assert_eq!(resample(&[1.5], 3), [1.5; 3]);
    }

    #[test]
    fn a_policy_without_a_mask_for_these_steps_shows_null() {
        let config = plan(json!({"scm_steps_mask_policy": "fast"}), 7, 8).unwrap().effective_config();
        assert_eq!(config["steps_computation_mask"], Value::Null);
        assert_eq!(config["scm_steps_mask_policy"], "fast");
    }
}
