//! Grids worth measuring on any model.

use afterimage_cache::{CacheBackend, ConfigError};
use serde_json::{Map, Value, json};

use crate::setting::{Published, Setting};

/// A named choice of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Those of the study that this project started from, beside its figures.
    Seed,
    /// From careful to daring, all backends.
    Sweep,
}

impl Preset {
    /// The study's pictures: DPM-Solver, 25 steps, guidance 4, seed 42.
    pub const SEED_STUDY_STEPS: usize = 25;
    /// See [`Self::SEED_STUDY_STEPS`].
    pub const SEED_STUDY_GUIDANCE_SCALE: f64 = 4.0;
    /// See [`Self::SEED_STUDY_STEPS`].
    pub const SEED_STUDY_SEED: u64 = 42;
    /// What differs between the study and a run here.
    pub const SEED_STUDY_NOTE: &'static str = "Published figures are of another model, also a DiT, on a GPU. \
        Another model and device reuse other steps and gain other factors; what should agree is the order of the settings.";

    /// Its settings.
    ///
    /// # Errors
    /// None: a test parses all.
    pub fn settings(self) -> Result<Vec<Setting>, ConfigError> {
        match self {
            Self::Seed => seed(),
            Self::Sweep => sweep(),
        }
    }
}

fn setting(name: &str, backend: CacheBackend, keys: Value) -> Result<Setting, ConfigError> {
    let Value::Object(keys) = keys else { return Setting::parse(name, backend, &Map::new()) };
    Setting::parse(name, backend, &keys)
}

fn cache_dit(name: &str, keys: Value) -> Result<Setting, ConfigError> {
    setting(name, CacheBackend::CacheDit, keys)
}

fn seed() -> Result<Vec<Setting>, ConfigError> {
    let plain = json!({"Fn_compute_blocks": 4, "Bn_compute_blocks": 0, "max_warmup_steps": 4,
        "residual_diff_threshold": 0.12, "max_continuous_cached_steps": -1});
    let with = |keys: Value| {
        let mut all = plain.clone();
        for (key, value) in keys.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        all
    };
    let published = |speedup, cached_steps| Some(Published { speedup, cached_steps: Some(cached_steps) });
    let taylor = json!({"enable_taylorseer": true, "taylorseer_order": 1, "max_continuous_cached_steps": 3});
    let mut settings = vec![
        Setting { published: published(Some(1.98), 12), ..cache_dit("DBCache", plain.clone())? },
        Setting { published: published(None, 11), ..cache_dit("DBCache + TaylorSeer", with(taylor))? },
    ];
    for policy in ["slow", "medium", "fast", "ultra"] {
        settings.push(cache_dit(&format!("steps mask {policy}"), with(json!({"scm_steps_mask_policy": policy})))?);
    }
    settings.push(setting("TeaCache", CacheBackend::TeaCache, json!({}))?);
    Ok(settings)
}

fn sweep() -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for threshold in [0.06, 0.12, 0.24] {
        let keys = json!({"residual_diff_threshold": threshold});
        settings.push(cache_dit(&format!("DBCache {threshold}"), keys)?);
    }
    for (order, threshold) in [(1, 0.12), (1, 0.24), (2, 0.12), (2, 0.24), (2, 0.4)] {
        let keys = json!({"residual_diff_threshold": threshold, "enable_taylorseer": true, "taylorseer_order": order});
        settings.push(cache_dit(&format!("TaylorSeer order {order}, {threshold}"), keys)?);
    }
    for policy in ["medium", "fast"] {
        let keys = json!({"scm_steps_mask_policy": policy, "scm_steps_policy": "static", "enable_taylorseer": true});
        settings.push(cache_dit(&format!("TaylorSeer, mask {policy}"), keys)?);
    }
    for threshold in [0.05, 0.1, 0.2] {
        let keys = json!({"rel_l1_thresh": threshold});
        settings.push(setting(&format!("TeaCache {threshold}"), CacheBackend::TeaCache, keys)?);
    }
    for threshold in [0.06, 0.12, 0.24] {
        let keys = json!({"mag_threshold": threshold});
        settings.push(setting(&format!("MagCache {threshold}"), CacheBackend::MagCache, keys)?);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_settings_can_be_parsed_and_have_names_of_their_own() {
        for (preset, count) in [(Preset::Seed, 7), (Preset::Sweep, 16)] {
            let mut names: Vec<_> = preset.settings().unwrap().into_iter().map(|setting| setting.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{preset:?}");
        }
    }
}
