//! The options of the `mag_cache` backend, with vLLM-Omni's keys and defaults.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::in_force::InForce;
use super::keys::MAG_CACHE;
use super::{ConfigError, Inherited};

/// What a parsed `cache_config` of backend `mag_cache` says.
#[derive(Debug, Clone, PartialEq)]
pub struct MagCacheConfig {
    /// A step is reused while the accumulated error is at most this.
    pub threshold: f64,
    /// At most this many reused steps in a row.
    pub max_skip_steps: usize,
    /// This share of the steps, from the start, is computed.
    pub retention_ratio: f64,
    /// Magnitude ratio of every step of some run; `None`: the model's own.
    pub ratios: Option<Vec<f64>>,
    /// The request's number of steps, if the configuration repeats it.
    pub num_inference_steps: Option<usize>,
    /// Which keys come from the server's configuration.
    pub inherited: Inherited,
}

impl MagCacheConfig {
    pub(super) fn parse(keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut fields = Fields::new(&MAG_CACHE, keys);
        let config = Self {
            threshold: fields.read("mag_threshold")?,
            max_skip_steps: fields.read("mag_max_skip_steps")?,
            retention_ratio: fields.read("mag_retention_ratio")?,
            ratios: fields.read("mag_ratios")?,
            num_inference_steps: fields.read("num_inference_steps")?,
            inherited: Inherited::default(),
        };
        fields.finish()?;
        Ok(config)
    }

    pub(crate) fn effective(&self, ratios: &[f64]) -> Map<String, Value> {
        InForce::new(&MAG_CACHE)
            .with("mag_threshold", self.threshold)
            .with("mag_max_skip_steps", self.max_skip_steps)
            .with("mag_retention_ratio", self.retention_ratio)
            .with("mag_ratios", ratios)
            .with("num_inference_steps", self.num_inference_steps)
            .keys()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_vllm_omnis() {
        let config = MagCacheConfig::parse(&Map::new()).unwrap();
        assert_eq!((config.threshold, config.max_skip_steps, config.retention_ratio), (0.24, 5, 0.1));
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (keys, key) in [
            (json!({"mag_threshold": -0.1}), "mag_threshold"),
            (json!({"mag_retention_ratio": 1.5}), "mag_retention_ratio"),
            (json!({"mag_ratios": []}), "mag_ratios"),
            (json!({"mag_ratios": [1, 0]}), "mag_ratios"),
            (json!({"mag_calibrate": true}), "mag_calibrate"),
        ] {
            assert_eq!(
                MagCacheConfig::parse(keys.as_object().unwrap()).unwrap_err().key.as_deref(),
                Some(key),
                "{keys}"
            );
        }
    }
}
