//! The options that only DBPrune has.

use serde_json::{Map, Value};

use super::ConfigError;
use super::cache_dit::{CacheDitConfig, ContinuousCounter};
use super::fields::Fields;
use super::in_force::InForce;
use super::keys::{CACHE_DIT, Scope};
use super::quoted::quoted;

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

impl PruneConfig {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Option<Self>, ConfigError> {
        let cache_type: String = fields.read("cache_type")?;
        let is_dynamic = fields.read("enable_dynamic_prune_threshold")?;
        let max = fields.read("max_dynamic_prune_threshold")?;
        let relax_ratio = fields.read("dynamic_prune_threshold_relax_ratio")?;
        let non_prune_blocks: Option<Vec<usize>> = fields.read("non_prune_block_ids")?;
        if cache_type != "DBPrune" {
            return Ok(None);
        }
        Ok(Some(Self {
            dynamic_threshold: if is_dynamic { Some(DynamicThreshold { max, relax_ratio }) } else { None },
            non_prune_blocks: non_prune_blocks.unwrap_or_default(),
        }))
    }

    pub(super) fn show(&self, keys: InForce) -> InForce {
        let dynamic = self.dynamic_threshold;
        keys.with("enable_dynamic_prune_threshold", dynamic.is_some())
            .with("max_dynamic_prune_threshold", dynamic.and_then(|dynamic| dynamic.max))
            .with("dynamic_prune_threshold_relax_ratio", dynamic.map(|dynamic| dynamic.relax_ratio))
            .with("non_prune_block_ids", &self.non_prune_blocks)
    }
}

/// Options that would be ignored by the chosen `cache_type` are refused.
pub(super) fn check(config: &CacheDitConfig, keys: &Map<String, Value>) -> Result<(), ConfigError> {
    if config.prune.is_none() {
        let mut prune_keys = CACHE_DIT.iter().filter(|key| key.scope == Scope::DbPrune).map(|key| key.name);
        return match prune_keys.find(|name| keys.get(*name).is_some_and(|value| !value.is_null())) {
            None => Ok(()),
            Some(name) => Err(ConfigError::at(name, format!("`{name}` needs `cache_type` \"DBPrune\""))),
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
    let found = quoted(keys.get(unused).unwrap_or(&Value::Null));
    Err(ConfigError::at(unused, format!("`{unused}` is {found}, which `cache_type` \"DBPrune\" cannot do")))
}
