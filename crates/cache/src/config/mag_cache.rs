//! The options of the `mag_cache` backend, with vLLM-Omni's keys and defaults.

use serde_json::{Map, Value, json};

use super::{ConfigError, Inherited, fields::Fields};

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
    /// What of it is the server's.
    pub inherited: Inherited,
}

impl MagCacheConfig {
    pub(super) fn parse(keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut fields = Fields::new(keys);
        let config = Self {
            threshold: fields.number("mag_threshold")?.unwrap_or(0.24),
            max_skip_steps: fields.count("mag_max_skip_steps", 0)?.unwrap_or(5),
            retention_ratio: fields.number("mag_retention_ratio")?.unwrap_or(0.1),
            ratios: fields.numbers("mag_ratios")?,
            num_inference_steps: fields.count("num_inference_steps", 1)?,
            inherited: Inherited::default(),
        };
        fields.finish()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, found: f64, right: &str| {
            Err(ConfigError::at(key, format!("`{key}` is {found}; it must be {right}")))
        };
        if self.threshold < 0.0 {
            return refuse("mag_threshold", self.threshold, "at least 0");
        }
        if !(0.0..=1.0).contains(&self.retention_ratio) {
            return refuse("mag_retention_ratio", self.retention_ratio, "from 0 to 1");
        }
        match self.ratios.iter().flatten().find(|ratio| **ratio <= 0.0) {
            Some(ratio) => refuse("mag_ratios", *ratio, "a list of numbers above 0"),
            None => Ok(()),
        }
    }

    pub(crate) fn effective(&self, ratios: &[f64]) -> Map<String, Value> {
        let keys = [
            ("mag_threshold", json!(self.threshold)),
            ("mag_max_skip_steps", json!(self.max_skip_steps)),
            ("mag_retention_ratio", json!(self.retention_ratio)),
            ("mag_ratios", json!(ratios)),
            ("num_inference_steps", json!(self.num_inference_steps)),
        ];
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
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
