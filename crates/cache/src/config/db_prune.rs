//! The options that only DBPrune has.

use serde_json::{Map, Value, json};

use super::cache_dit::{CacheDitConfig, ContinuousCounter};
use super::{ConfigError, fields::Fields, object};

/// cache-dit's factor on the mean distance of a dynamic threshold.
const DEFAULT_RELAX_RATIO: f64 = 1.25;

/// What only DBPrune has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PruneConfig {
    /// Raise the threshold to what the step's first distances suggest.
    pub dynamic_threshold: Option<DynamicThreshold>,
    /// Blocks that always run, beside the first and the last.
    pub non_prune_blocks: Vec<usize>,
}

/// A threshold that follows the mean of the first distances of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicThreshold {
    /// Bound; `None`: twice the configured threshold.
    pub max: Option<f64>,
    /// Factor on the mean.
    pub relax_ratio: f64,
}

/// Keys that only DBPrune has.
const PRUNE_KEYS: [&str; 4] = [
    "enable_dynamic_prune_threshold",
    "max_dynamic_prune_threshold",
    "dynamic_prune_threshold_relax_ratio",
    "non_prune_block_ids",
];

impl PruneConfig {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Option<Self>, ConfigError> {
        let prunes = fields.choice("cache_type", &[("DBCache", false), ("DBPrune", true)])?.unwrap_or(false);
        let dynamic = fields.boolean("enable_dynamic_prune_threshold")?.unwrap_or(false);
        let max = fields.number("max_dynamic_prune_threshold")?;
        let relax_ratio = fields.number("dynamic_prune_threshold_relax_ratio")?.unwrap_or(DEFAULT_RELAX_RATIO);
        let non_prune_blocks = fields.integers("non_prune_block_ids", 0, usize::MAX)?.unwrap_or_default();
        let dynamic_threshold = dynamic.then_some(DynamicThreshold { max, relax_ratio });
        Ok(prunes.then_some(Self { dynamic_threshold, non_prune_blocks }))
    }

    pub(super) fn effective(&self) -> Map<String, Value> {
        let dynamic = self.dynamic_threshold;
        object(json!({
            "enable_dynamic_prune_threshold": dynamic.is_some(),
            "max_dynamic_prune_threshold": dynamic.and_then(|dynamic| dynamic.max),
            "dynamic_prune_threshold_relax_ratio": dynamic.map_or(DEFAULT_RELAX_RATIO, |dynamic| dynamic.relax_ratio),
            "non_prune_block_ids": self.non_prune_blocks,
        }))
    }
}

/// Options that would be ignored by the chosen `cache_type` are refused.
pub(super) fn check(config: &CacheDitConfig, keys: &Map<String, Value>) -> Result<(), ConfigError> {
    let given = |key: &&&str| keys.get(**key).is_some_and(|value| !value.is_null());
    if config.prune.is_none() {
        return match PRUNE_KEYS.iter().find(given) {
            None => Ok(()),
            Some(key) => Err(ConfigError::at(key, format!("`{key}` needs `cache_type` \"DBPrune\""))),
        };
    }
    let unused = if config.max_accumulated_residual_diff_threshold.is_some() {
        "max_accumulated_residual_diff_threshold"
    } else if config.continuous_counter == ContinuousCounter::Legacy {
        "continuous_counter"
    } else if !config.cfg_diff_compute_separate {
        "cfg_diff_compute_separate"
    } else {
        return Ok(());
    };
    let found = keys.get(unused).unwrap_or(&Value::Null);
    Err(ConfigError::at(unused, format!("`{unused}` is {found}, which `cache_type` \"DBPrune\" cannot do")))
}
