//! The plan of backend `tea_cache`.

use super::ModelFacts;
use crate::config::{ConfigError, TEA_CACHE_COEFFICIENTS, TeaCacheConfig};

/// The checked options of backend `tea_cache`.
#[derive(Debug)]
pub struct TeaCachePlan {
    pub(crate) config: TeaCacheConfig,
    pub(crate) coefficients: [f64; TEA_CACHE_COEFFICIENTS],
    pub(crate) separate_cfg: bool,
    pub(crate) steps: usize,
}

impl TeaCachePlan {
    pub(super) fn new(config: &TeaCacheConfig, steps: usize, model: ModelFacts<'_>) -> Result<Self, ConfigError> {
        let Some(coefficients) = config.coefficients.or(model.tea_cache_coefficients) else {
            let message =
                "this model has no `coefficients` of its own; give five, or fit them with `afterimage calibrate`";
            return Err(ConfigError::at("coefficients", message));
        };
        Ok(Self { config: config.clone(), coefficients, separate_cfg: model.separate_cfg, steps })
    }
}
