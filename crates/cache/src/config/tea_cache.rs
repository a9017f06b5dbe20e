//! The options of the `tea_cache` backend, with vLLM-Omni's keys and defaults.

use serde_json::{Map, Value, json};

use super::{ConfigError, fields::Fields};

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
        let mut fields = Fields::new(keys);
        let config = Self {
            rel_l1_thresh: fields.number("rel_l1_thresh")?.unwrap_or(0.2),
            coefficients: parse_coefficients(&mut fields)?,
            num_warmup_steps: fields.count("num_warmup_steps", 0)?.unwrap_or(0),
            force_last_step: fields.boolean("force_last_step")?.unwrap_or(false),
        };
        fields.finish()?;
        if config.rel_l1_thresh <= 0.0 {
            let message = format!("`rel_l1_thresh` is {}; it must be above 0", config.rel_l1_thresh);
            return Err(ConfigError::at("rel_l1_thresh", message));
        }
        Ok(config)
    }

    pub(crate) fn effective(&self, coefficients: &[f64]) -> Map<String, Value> {
        let keys = [
            ("rel_l1_thresh", json!(self.rel_l1_thresh)),
            ("coefficients", json!(coefficients)),
            ("num_warmup_steps", json!(self.num_warmup_steps)),
            ("force_last_step", json!(self.force_last_step)),
        ];
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

fn parse_coefficients(fields: &mut Fields<'_>) -> Result<Option<[f64; TEA_CACHE_COEFFICIENTS]>, ConfigError> {
    let Some(numbers) = fields.numbers("coefficients")? else { return Ok(None) };
    let found = numbers.len();
    numbers.try_into().map(Some).map_err(|_| {
        let message = format!("`coefficients` has {found} numbers; it must have {TEA_CACHE_COEFFICIENTS}");
        ConfigError::at("coefficients", message)
    })
}

#[cfg(test)]
mod tests {
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
