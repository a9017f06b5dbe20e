//! The plan of backend `mag_cache`.

use super::{ModelFacts, PlanWarning, check_steps};
use crate::config::{ConfigError, MagCacheConfig};

/// The checked options of backend `mag_cache`.
#[derive(Debug)]
pub struct MagCachePlan {
    pub(crate) config: MagCacheConfig,
    /// One per step of the request.
    pub(crate) ratios: Vec<f64>,
    /// Steps below this index are computed.
    pub(crate) retained_steps: usize,
    pub(crate) separate_cfg: bool,
    pub(super) warnings: Vec<PlanWarning>,
}

impl MagCachePlan {
    pub(super) fn new(config: &MagCacheConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let repeated = check_steps(config.num_inference_steps, steps, config.inherited, &mut warnings)?;
        let Some(ratios) = config.ratios.as_deref().or(model.mag_ratios) else {
            let message =
                "this model has no `mag_ratios` of its own; give some, or measure them with `afterimage calibrate`";
            return Err(ConfigError::at("mag_ratios", message));
        };
        Ok(Self {
            config: MagCacheConfig { num_inference_steps: repeated, ..config.clone() },
            ratios: resample(ratios, steps),
            retained_steps: (config.retention_ratio * steps as f64 + 0.5) as usize,
            separate_cfg: model.separate_cfg,
            warnings,
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

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
}
