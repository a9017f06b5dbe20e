//! The options of the `tea_cache` backend, with vLLM-Omni's keys and defaults.

use serde_json::{Map, Value};

use super::ConfigError;
use super::fields::Fields;
use super::in_force::InForce;
use super::keys::TEA_CACHE;

/// Coefficients of the rescaling polynomial, degree 4.
pub const TEA_CACHE_COEFFICIENTS: usize = 5;

/// What a parsed `cache_config` of backend `tea_cache` says.
#[derive(Debug, Clone, PartialEq)]
pub struct TeaCacheConfig {
    /// A step is reused while the accumulated, rescaled change of its input is below this.
    pub rel_l1_thresh: f64,
    /// From input change to output change, highest degree first; `None`: the model's own.
    pub coefficients: Option<[f64; TEA_CACHE_COEFFICIENTS]>,
    /// Steps below this index are computed.
    pub num_warmup_steps: usize,
    /// The last step is computed.
    pub force_last_step: bool,
}

impl TeaCacheConfig {
    pub(super) fn parse(keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut fields = Fields::new(&TEA_CACHE, keys);
        let config = Self {
            rel_l1_thresh: fields.read("rel_l1_thresh")?,
            coefficients: fields.read("coefficients")?,
            num_warmup_steps: fields.read("num_warmup_steps")?,
            force_last_step: fields.read("force_last_step")?,
        };
        fields.finish()?;
        Ok(config)
    }

    pub(crate) fn effective(&self, coefficients: &[f64]) -> Map<String, Value> {
        InForce::new(&TEA_CACHE)
            .with("rel_l1_thresh", self.rel_l1_thresh)
            .with("coefficients", coefficients)
            .with("num_warmup_steps", self.num_warmup_steps)
            .with("force_last_step", self.force_last_step)
            .keys()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_vllm_omnis() {
        let config = TeaCacheConfig::parse(&Map::new()).unwrap();
        assert_eq!(config.rel_l1_thresh, 0.2);
        assert_eq!((config.coefficients, config.num_warmup_steps, config.force_last_step), (None, 0, false));
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (keys, key) in [
            (json!({"rel_l1_thresh": 0}), "rel_l1_thresh"),
            (json!({"coefficients": [1, 2, 3, 4]}), "coefficients"),
            (json!({"coefficients": [1, 2, 3, 4, "5"]}), "coefficients"),
            (json!({"num_warmup_steps": -1}), "num_warmup_steps"),
            (json!({"residual_diff_threshold": 0.1}), "residual_diff_threshold"),
        ] {
            assert_eq!(
                TeaCacheConfig::parse(keys.as_object().unwrap()).unwrap_err().key.as_deref(),
                Some(key),
                "{keys}"
            );
        }
    }
}
