//! The options of the `cache_dit` backend: DBCache or DBPrune, calibrators and step masks.
//!
//! Keys and meanings are cache-dit 1.5.3's, defaults are vLLM-Omni's (chosen so that a model
//! distilled to 8 steps still caches).

use serde_json::{Map, Value, json};

use super::db_prune::{self, PruneConfig};
use super::{ConfigError, Inherited, fields::Fields, object};
use crate::steps_mask::MaskPolicy;

/// Highest TaylorSeer order; every order costs one more copy of the residual.
const MAX_TAYLORSEER_ORDER: usize = 4;

/// What a parsed `cache_config` of backend `cache_dit` says.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheDitConfig {
    /// The first blocks, always computed; the distance is measured on what they add.
    pub fn_compute_blocks: usize,
    /// The last blocks, always computed.
    pub bn_compute_blocks: usize,
    /// Steps below this index (that the interval hits) are computed.
    pub max_warmup_steps: usize,
    /// Of the warm-up steps only every so-manieth is forced.
    pub warmup_interval: usize,
    /// A step is reused if its distance is below this.
    pub residual_diff_threshold: f64,
    /// At most this many reused steps per request.
    pub max_cached_steps: Option<usize>,
    /// At most this many reused steps in a row.
    pub max_continuous_cached_steps: Option<usize>,
    /// How "in a row" is counted.
    pub continuous_counter: ContinuousCounter,
    /// Once the recorded distances add up to this, no more reuse.
    pub max_accumulated_residual_diff_threshold: Option<f64>,
    /// The two guidance branches run as two forwards per step; `None`: as the model does.
    pub enable_separate_cfg: Option<bool>,
    /// With separate forwards: the unconditional one comes first.
    pub cfg_compute_first: bool,
    /// With separate forwards: each branch measures its own distance.
    pub cfg_diff_compute_separate: bool,
    /// Whether block lists that run one after the other are decided about together.
    pub block_lists: BlockLists,
    /// Prediction instead of plain reuse.
    pub calibrator: Option<CalibratorConfig>,
    /// Where the mask of forced steps comes from.
    pub steps_mask: Option<StepsMask>,
    /// The mask that this source must give, where a configuration repeats it, as a response's does.
    pub repeated_mask: Option<Vec<bool>>,
    /// What a step that the mask does not force does.
    pub mask_mode: MaskMode,
    /// The request's number of steps, if the configuration repeats it.
    pub num_inference_steps: Option<usize>,
    /// When the state is dropped and rebuilt.
    pub refresh: Option<RefreshConfig>,
    /// DBPrune: every block decides for itself. `None`: DBCache.
    pub prune: Option<PruneConfig>,
    /// What of it is the server's.
    pub inherited: Inherited,
}

/// A forced rebuild of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshConfig {
    /// Forwards (not steps) before it happens.
    pub forwards: usize,
    /// It happens every so many forwards, not just once.
    pub repeats: bool,
}

/// How the streak of reused steps is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContinuousCounter {
    /// cache-dit 1.5.3: the true length of the streak.
    V1_5_3,
    /// cache-dit 1.5.0 to 1.5.2, as run by vLLM-Omni 0.30 and SGLang 0.5.23: a gap does not reset it.
    Legacy,
}

/// How a model with several block lists is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockLists {
    /// As one list, as cache-dit looks at FLUX.
    Joined,
    /// Each list decides for itself, with head and tail blocks of its own, as in vLLM-Omni.
    Separate,
}

/// What a step outside the forced steps of a mask does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskMode {
    /// The ordinary checks.
    Dynamic,
    /// Reuse without any check.
    Static,
}

/// A source of the steps computation mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepsMask {
    /// A named policy, made for the request's number of steps.
    Policy(MaskPolicy),
    /// Own run lengths.
    Bins {
        /// Lengths of the computed runs.
        compute: Vec<usize>,
        /// Lengths of the runs that may be reused.
        cache: Vec<usize>,
    },
    /// The mask itself; `true` = compute.
    Explicit(Vec<bool>),
}

/// How the skipped blocks' contribution is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalibratorConfig {
    /// The method.
    pub kind: CalibratorKind,
    /// Predict the encoder stream as well, not only the hidden one.
    pub encoder: bool,
    /// Predict what the skipped blocks add (`true`) or their output itself (`false`).
    pub residual: bool,
}

/// Prediction methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalibratorKind {
    /// Taylor expansion of this order (TaylorSeer, arXiv 2503.06923).
    TaylorSeer(usize),
    /// Forecast and calibrate (FoCa, arXiv 2508.16211).
    FoCa,
}

impl CacheDitConfig {
    pub(super) fn parse(keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut fields = Fields::new(keys);
        let (steps_mask, repeated_mask) = parse_steps_mask(&mut fields)?;
        let config = Self {
            fn_compute_blocks: fields.count("Fn_compute_blocks", 1)?.unwrap_or(1),
            bn_compute_blocks: fields.count("Bn_compute_blocks", 0)?.unwrap_or(0),
            max_warmup_steps: fields.count("max_warmup_steps", 0)?.unwrap_or(4),
            warmup_interval: fields.count("warmup_interval", 1)?.unwrap_or(1),
            residual_diff_threshold: fields.number("residual_diff_threshold")?.unwrap_or(0.24),
            max_cached_steps: fields.limit("max_cached_steps")?.unwrap_or(None),
            max_continuous_cached_steps: fields.limit("max_continuous_cached_steps")?.unwrap_or(Some(3)),
            continuous_counter: fields
                .choice(
                    "continuous_counter",
                    &[("1.5.3", ContinuousCounter::V1_5_3), ("legacy", ContinuousCounter::Legacy)],
                )?
                .unwrap_or(ContinuousCounter::V1_5_3),
            max_accumulated_residual_diff_threshold: fields.number("max_accumulated_residual_diff_threshold")?,
            enable_separate_cfg: fields.boolean("enable_separate_cfg")?,
            cfg_compute_first: fields.boolean("cfg_compute_first")?.unwrap_or(false),
            cfg_diff_compute_separate: fields.boolean("cfg_diff_compute_separate")?.unwrap_or(true),
            block_lists: fields
                .choice("block_lists", &[("joined", BlockLists::Joined), ("separate", BlockLists::Separate)])?
                .unwrap_or(BlockLists::Joined),
            calibrator: parse_calibrator(&mut fields)?,
            steps_mask,
            repeated_mask,
            mask_mode: fields
                .choice("scm_steps_policy", &[("dynamic", MaskMode::Dynamic), ("static", MaskMode::Static)])?
                .unwrap_or(MaskMode::Dynamic),
            num_inference_steps: fields.count("num_inference_steps", 1)?,
            refresh: parse_refresh(&mut fields)?,
            prune: PruneConfig::parse(&mut fields)?,
            inherited: Inherited::default(),
        };
        fields.finish()?;
        db_prune::check(&config, keys)?;
        Ok(config)
    }

    /// Every key with the value in force; `mask` is the mask made for the request.
    pub(crate) fn effective(&self, mask: Option<&[bool]>, separate_cfg: bool) -> Map<String, Value> {
        let limit = |limit: Option<usize>| limit.map_or(json!(-1), |limit| json!(limit));
        let bins = |pick: fn(&StepsMask) -> Option<&Vec<usize>>| self.steps_mask.as_ref().and_then(pick);
        let taylorseer_order = match self.calibrator {
            Some(CalibratorConfig { kind: CalibratorKind::TaylorSeer(order), .. }) => Some(order),
            _ => None,
        };
        let value = json!({
            "cache_type": if self.prune.is_some() { "DBPrune" } else { "DBCache" },
            "Fn_compute_blocks": self.fn_compute_blocks,
            "Bn_compute_blocks": self.bn_compute_blocks,
            "max_warmup_steps": self.max_warmup_steps,
            "warmup_interval": self.warmup_interval,
            "residual_diff_threshold": self.residual_diff_threshold,
            "max_cached_steps": limit(self.max_cached_steps),
            "max_continuous_cached_steps": limit(self.max_continuous_cached_steps),
            "continuous_counter": match self.continuous_counter {
                ContinuousCounter::V1_5_3 => "1.5.3",
                ContinuousCounter::Legacy => "legacy",
            },
            "max_accumulated_residual_diff_threshold": self.max_accumulated_residual_diff_threshold,
            "enable_separate_cfg": separate_cfg,
            "cfg_compute_first": self.cfg_compute_first,
            "cfg_diff_compute_separate": self.cfg_diff_compute_separate,
            "block_lists": match self.block_lists {
                BlockLists::Joined => "joined",
                BlockLists::Separate => "separate",
            },
            "enable_taylorseer": taylorseer_order.is_some(),
            "taylorseer_order": taylorseer_order.unwrap_or(1),
            "enable_foca": matches!(self.calibrator, Some(CalibratorConfig { kind: CalibratorKind::FoCa, .. })),
            "enable_encoder_calibrator": self.calibrator.is_some_and(|calibrator| calibrator.encoder),
            "calibrator_cache_type": match self.calibrator {
                Some(CalibratorConfig { residual: false, .. }) => "hidden_states",
                _ => "residual",
            },
            "scm_steps_mask_policy": match &self.steps_mask {
                Some(StepsMask::Policy(policy)) => Some(policy.as_str()),
                _ => None,
            },
            "scm_compute_bins": bins(|mask| match mask { StepsMask::Bins { compute, .. } => Some(compute), _ => None }),
            "scm_cache_bins": bins(|mask| match mask { StepsMask::Bins { cache, .. } => Some(cache), _ => None }),
            "scm_steps_policy": match self.mask_mode {
                MaskMode::Dynamic => "dynamic",
                MaskMode::Static => "static",
            },
            "steps_computation_mask": mask.map(|mask| mask.iter().copied().map(u8::from).collect::<Vec<_>>()),
            "num_inference_steps": self.num_inference_steps,
            "force_refresh_step_hint": self.refresh.map(|refresh| refresh.forwards),
            "force_refresh_step_policy": match self.refresh {
                Some(RefreshConfig { repeats: true, .. }) => "repeat",
                _ => "once",
            },
        });
        let mut keys = object(value);
        if let Some(prune) = &self.prune {
            keys.extend(prune.effective());
        }
        keys
    }
}

fn parse_refresh(fields: &mut Fields<'_>) -> Result<Option<RefreshConfig>, ConfigError> {
    let forwards = fields.count("force_refresh_step_hint", 1)?;
    let repeats = fields.choice("force_refresh_step_policy", &[("once", false), ("repeat", true)])?.unwrap_or(false);
    Ok(forwards.map(|forwards| RefreshConfig { forwards, repeats }))
}

fn parse_calibrator(fields: &mut Fields<'_>) -> Result<Option<CalibratorConfig>, ConfigError> {
    let taylorseer = fields.boolean("enable_taylorseer")?.unwrap_or(false);
    let order = fields.count("taylorseer_order", 1)?.unwrap_or(1);
    let foca = fields.boolean("enable_foca")?.unwrap_or(false);
    let encoder = fields.boolean("enable_encoder_calibrator")?.unwrap_or(true);
    let residual =
        fields.choice("calibrator_cache_type", &[("residual", true), ("hidden_states", false)])?.unwrap_or(true);
    if order > MAX_TAYLORSEER_ORDER {
        let message = format!("`taylorseer_order` is {order}; it must be from 1 to {MAX_TAYLORSEER_ORDER}");
        return Err(ConfigError::at("taylorseer_order", message));
    }
    let kind = match (taylorseer, foca) {
        (false, false) => return Ok(None),
        (true, false) => CalibratorKind::TaylorSeer(order),
        (false, true) => CalibratorKind::FoCa,
        (true, true) => {
            let message = "`enable_foca` and `enable_taylorseer` are both true; at most one calibrator can be on";
            return Err(ConfigError::at("enable_foca", message));
        }
    };
    Ok(Some(CalibratorConfig { kind, encoder, residual }))
}

/// The source of the mask, and the mask it must give where both are there.
fn parse_steps_mask(fields: &mut Fields<'_>) -> Result<(Option<StepsMask>, Option<Vec<bool>>), ConfigError> {
    let policy = fields.choice("scm_steps_mask_policy", &MaskPolicy::ALL.map(|policy| (policy.as_str(), policy)))?;
    let compute = fields.integers("scm_compute_bins", 1, usize::MAX)?;
    let cache = fields.integers("scm_cache_bins", 1, usize::MAX)?;
    let mask = fields.integers("steps_computation_mask", 0, 1)?;
    let mask: Option<Vec<bool>> = mask.map(|mask| mask.into_iter().map(|bit| bit == 1).collect());
    let source = match (policy, compute, cache) {
        (None, None, None) => return Ok((mask.map(StepsMask::Explicit), None)),
        (Some(policy), None, None) => StepsMask::Policy(policy),
        (None, Some(compute), Some(cache)) => StepsMask::Bins { compute, cache },
        (Some(_), Some(_), Some(_)) => {
            let message = "`scm_compute_bins` and `scm_steps_mask_policy` both give a steps mask; give one";
            return Err(ConfigError::at("scm_compute_bins", message));
        }
        (_, Some(_), None) => {
            let message = "`scm_compute_bins` needs `scm_cache_bins` beside it";
            return Err(ConfigError::at("scm_cache_bins", message));
        }
        (_, None, Some(_)) => {
            let message = "`scm_cache_bins` needs `scm_compute_bins` beside it";
            return Err(ConfigError::at("scm_compute_bins", message));
        }
    };
    Ok((Some(source), mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: Value) -> Result<CacheDitConfig, ConfigError> {
        CacheDitConfig::parse(keys.as_object().unwrap())
    }

    #[test]
    fn absent_and_null_keys_take_vllm_omni_defaults() {
        let config = parse(json!({"Bn_compute_blocks": null})).unwrap();
        assert_eq!((config.fn_compute_blocks, config.bn_compute_blocks, config.max_warmup_steps), (1, 0, 4));
        assert_eq!(config.residual_diff_threshold, 0.24);
        assert_eq!((config.max_cached_steps, config.max_continuous_cached_steps), (None, Some(3)));
    }

    #[test]
    fn a_typo_names_the_nearest_key() {
        let error = parse(json!({"residual_dif_threshold": 0.1})).unwrap_err();
        assert_eq!(error.key.as_deref(), Some("residual_dif_threshold"));
        assert!(error.message.contains("did you mean `residual_diff_threshold`"), "{}", error.message);
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (keys, key) in [
            (json!({"Fn_compute_blocks": 0}), "Fn_compute_blocks"),
            (json!({"Fn_compute_blocks": 1.5}), "Fn_compute_blocks"),
            (json!({"Fn_compute_blocks": "4"}), "Fn_compute_blocks"),
            (json!({"max_cached_steps": -2}), "max_cached_steps"),
            (json!({"warmup_interval": 0}), "warmup_interval"),
            (json!({"residual_diff_threshold": true}), "residual_diff_threshold"),
            (json!({"continuous_counter": "1.5.2"}), "continuous_counter"),
            (json!({"block_lists": "split"}), "block_lists"),
            (json!({"taylorseer_order": 5}), "taylorseer_order"),
            (json!({"enable_taylorseer": true, "enable_foca": true}), "enable_foca"),
            (json!({"scm_compute_bins": [4]}), "scm_cache_bins"),
            (json!({"scm_cache_bins": [4]}), "scm_compute_bins"),
            (json!({"scm_steps_mask_policy": "fast", "scm_cache_bins": [1]}), "scm_compute_bins"),
            (
                json!({"scm_steps_mask_policy": "fast", "scm_compute_bins": [1], "scm_cache_bins": [1]}),
                "scm_compute_bins",
            ),
            (json!({"steps_computation_mask": [1, 2]}), "steps_computation_mask"),
            (json!({"steps_computation_mask": []}), "steps_computation_mask"),
            (json!({"force_refresh_step_policy": "always"}), "force_refresh_step_policy"),
            (json!({"cache_type": "NONE"}), "cache_type"),
            (json!({"non_prune_block_ids": [2]}), "non_prune_block_ids"),
            (json!({"cache_type": "DBPrune", "continuous_counter": "legacy"}), "continuous_counter"),
            (
                json!({"cache_type": "DBPrune", "max_accumulated_residual_diff_threshold": 1}),
                "max_accumulated_residual_diff_threshold",
            ),
        ] {
            let error = parse(keys.clone()).unwrap_err();
            assert_eq!(error.key.as_deref(), Some(key), "{keys}: {error}");
        }
    }
}
