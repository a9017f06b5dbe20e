//! The options of the `cache_dit` backend: DBCache or DBPrune, calibrators and step masks.
//!
//! Keys and meanings are cache-dit 1.5.3's, defaults are vLLM-Omni's (chosen so that a model
//! distilled to 8 steps still caches).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::calibrator::CalibratorConfig;
use super::db_prune::{self, PruneConfig};
use super::fields::Fields;
use super::in_force::InForce;
use super::keys::CACHE_DIT;
use super::steps_mask::{MaskMode, StepsMask};
use super::{ConfigError, Inherited};

/// What a parsed `cache_config` of backend `cache_dit` says.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheDitConfig {
    /// The first blocks, always computed; the distance is measured on what they add.
    pub fn_compute_blocks: usize,
    /// The last blocks, always computed.
    pub bn_compute_blocks: usize,
    /// Steps below this index (that the interval hits) are computed.
    pub max_warmup_steps: usize,
    /// Of the warm-up steps only every n-th is forced.
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
    /// The mask that this source must give, where a configuration repeats it, as one from a response does.
    pub repeated_mask: Option<Vec<bool>>,
    /// What a step that the mask does not force does.
    pub mask_mode: MaskMode,
    /// The request's number of steps, if the configuration repeats it.
    pub num_inference_steps: Option<usize>,
    /// When the state is dropped and rebuilt.
    pub refresh: Option<RefreshConfig>,
    /// DBPrune: every block decides for itself. `None`: DBCache.
    pub prune: Option<PruneConfig>,
    /// Which keys come from the server's configuration.
    pub inherited: Inherited,
}

/// A forced rebuild of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshConfig {
    /// Forwards (not steps) before it happens.
    pub forwards: usize,
    /// It happens again each time this many have passed, not just once.
    pub repeats: bool,
}

/// How the streak of reused steps is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContinuousCounter {
    /// cache-dit 1.5.3: the true length of the streak.
    #[serde(rename = "1.5.3")]
    V1_5_3,
    /// cache-dit 1.5.0 to 1.5.2, as run by vLLM-Omni 0.30 and SGLang 0.5.23: a gap does not reset it.
    #[serde(rename = "legacy")]
    Legacy,
}

/// How a model with several block lists is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockLists {
    /// As one list, as cache-dit looks at FLUX.
    Joined,
    /// Each list decides for itself, with head and tail blocks of its own, as in vLLM-Omni.
    Separate,
}

impl CacheDitConfig {
    pub(super) fn parse(keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut fields = Fields::new(&CACHE_DIT, keys);
        let (steps_mask, repeated_mask) = StepsMask::parse(&mut fields)?;
        let config = Self {
            fn_compute_blocks: fields.read("Fn_compute_blocks")?,
            bn_compute_blocks: fields.read("Bn_compute_blocks")?,
            max_warmup_steps: fields.read("max_warmup_steps")?,
            warmup_interval: fields.read("warmup_interval")?,
            residual_diff_threshold: fields.read("residual_diff_threshold")?,
            max_cached_steps: fields.limit("max_cached_steps")?,
            max_continuous_cached_steps: fields.limit("max_continuous_cached_steps")?,
            continuous_counter: fields.read("continuous_counter")?,
            max_accumulated_residual_diff_threshold: fields.read("max_accumulated_residual_diff_threshold")?,
            enable_separate_cfg: fields.read("enable_separate_cfg")?,
            cfg_compute_first: fields.read("cfg_compute_first")?,
            cfg_diff_compute_separate: fields.read("cfg_diff_compute_separate")?,
            block_lists: fields.read("block_lists")?,
            calibrator: CalibratorConfig::parse(&mut fields)?,
            steps_mask,
            repeated_mask,
            mask_mode: fields.read("scm_steps_policy")?,
            num_inference_steps: fields.read("num_inference_steps")?,
            refresh: RefreshConfig::parse(&mut fields)?,
            prune: PruneConfig::parse(&mut fields)?,
            inherited: Inherited::default(),
        };
        fields.finish()?;
        db_prune::check(&config, keys)?;
        Ok(config)
    }

    /// Every key with the value in force; `mask` is the mask made for the request.
    pub(crate) fn effective(&self, mask: Option<&[bool]>, separate_cfg: bool) -> Map<String, Value> {
        let mut keys = InForce::new(&CACHE_DIT)
            .with("cache_type", if self.prune.is_some() { "DBPrune" } else { "DBCache" })
            .with("Fn_compute_blocks", self.fn_compute_blocks)
            .with("Bn_compute_blocks", self.bn_compute_blocks)
            .with("max_warmup_steps", self.max_warmup_steps)
            .with("warmup_interval", self.warmup_interval)
            .with("residual_diff_threshold", self.residual_diff_threshold)
            .with_limit("max_cached_steps", self.max_cached_steps)
            .with_limit("max_continuous_cached_steps", self.max_continuous_cached_steps)
            .with("continuous_counter", self.continuous_counter)
            .with("max_accumulated_residual_diff_threshold", self.max_accumulated_residual_diff_threshold)
            .with("enable_separate_cfg", separate_cfg)
            .with("cfg_compute_first", self.cfg_compute_first)
            .with("cfg_diff_compute_separate", self.cfg_diff_compute_separate)
            .with("block_lists", self.block_lists);
        keys = CalibratorConfig::show(self.calibrator, keys);
        keys = StepsMask::show(self.steps_mask.as_ref(), self.mask_mode, mask, keys);
        keys = keys.with("num_inference_steps", self.num_inference_steps);
        keys = RefreshConfig::show(self.refresh, keys);
        if let Some(prune) = &self.prune {
            keys = prune.show(keys);
        }
        keys.keys()
    }
}

impl RefreshConfig {
    fn parse(fields: &mut Fields<'_>) -> Result<Option<Self>, ConfigError> {
        let forwards: Option<usize> = fields.read("force_refresh_step_hint")?;
        let policy: String = fields.read("force_refresh_step_policy")?;
        Ok(forwards.map(|forwards| Self { forwards, repeats: policy == "repeat" }))
    }

    fn show(refresh: Option<Self>, keys: InForce) -> InForce {
        let policy = refresh.map(|refresh| if refresh.repeats { "repeat" } else { "once" });
        keys.with("force_refresh_step_hint", refresh.map(|refresh| refresh.forwards))
            .with("force_refresh_step_policy", policy)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
