//! The name cache-dit gives a run: `DBCache_F4B0_W4I1M0MC0_R0.12_CFG0_T0O0_S12`.

use super::CacheDitPlan;
use crate::config::{CalibratorConfig, CalibratorKind, MaskMode};

/// The tag of a run that reused `cached_steps` steps.
pub(super) fn tag(plan: &CacheDitPlan, cached_steps: usize, pruned_percent: Option<f64>) -> String {
    let config = &plan.config;
    let limit = |limit: Option<usize>| limit.unwrap_or(0);
    let mut tag = format!(
        "{}_F{}B{}_W{}I{}M{}MC{}_R{}",
        if config.prune.is_some() { "DBPrune" } else { "DBCache" },
        config.fn_compute_blocks,
        config.bn_compute_blocks,
        config.max_warmup_steps,
        config.warmup_interval,
        limit(config.max_cached_steps),
        limit(config.max_continuous_cached_steps),
        python_float(config.residual_diff_threshold),
    );
    match pruned_percent {
        Some(percent) => tag += &format!("_P{}", python_float(percent)),
        None => tag += &steps_and_guidance(plan),
    }
    tag += &match config.calibrator {
        None => "_T0O0".to_owned(),
        Some(CalibratorConfig { kind: CalibratorKind::TaylorSeer(order), .. }) => format!("_T1O{order}"),
        Some(CalibratorConfig { kind: CalibratorKind::FoCa, .. }) => "_FoCa".to_owned(),
    };
    if cached_steps > 0 {
        tag += &format!("_S{cached_steps}");
    }
    tag
}

/// The part of the tag about steps and guidance, which DBPrune's does not have.
fn steps_and_guidance(plan: &CacheDitPlan) -> String {
    let config = &plan.config;
    let mut tag = String::new();
    if let Some(mask) = &plan.mask {
        let digits: String = mask.iter().map(|&bit| if bit { '1' } else { '0' }).collect();
        let mode = if config.mask_mode == MaskMode::Static { "static" } else { "dynamic" };
        tag += &format!("_SCM{digits}_{mode}");
    }
    if let Some(steps) = config.num_inference_steps {
        tag += &format!("_N{steps}");
    }
    if let Some(refresh) = config.refresh {
        tag += &format!("_FR{}_{}", refresh.forwards, if refresh.repeats { "repeat" } else { "once" });
    }
    tag + &format!("_CFG{}", u8::from(plan.separate_cfg))
}

/// A float as Python prints it: `0.08`, `1.0`, `1e-05`.
fn python_float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::ModelFacts;
    use crate::{CacheBackend, CacheConfig, CachePlan, ConfigError};

    fn plan(keys: Value, steps: usize, blocks: usize) -> Result<CachePlan, ConfigError> {
        let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap())?;
        CachePlan::new(&config, steps, ModelFacts { blocks: &[blocks], ..Default::default() })
    }

    #[test]
    fn tags_are_those_of_cache_dit() {
        let tag = |keys, steps, cached| plan(keys, steps, 8).unwrap().tag(cached, None).unwrap();
        assert_eq!(tag(json!({"enable_taylorseer": true}), 28, 18), "DBCache_F1B0_W4I1M0MC3_R0.24_CFG0_T1O1_S18");
        assert_eq!(
            tag(
                json!({"max_continuous_cached_steps": -1, "residual_diff_threshold": 1, "Fn_compute_blocks": 4}),
                28,
                0
            ),
            "DBCache_F4B0_W4I1M0MC0_R1.0_CFG0_T0O0"
        );
        assert_eq!(
            tag(
                json!({
                    "Fn_compute_blocks": 4, "residual_diff_threshold": 0.12, "max_continuous_cached_steps": -1,
                    "scm_steps_mask_policy": "fast", "num_inference_steps": 28, "force_refresh_step_hint": 9,
                    "enable_taylorseer": true, "taylorseer_order": 2
                }),
                28,
                0
            ),
            "DBCache_F4B0_W4I1M0MC0_R0.12_SCM1111110100010000100000100001_dynamic_N28_FR9_once_CFG0_T1O2"
        );
    }

    #[test]
    fn python_writes_small_floats_with_two_digit_exponents() {
        assert_eq!(python_float(0.08), "0.08");
        assert_eq!(python_float(1.0), "1.0");
        assert_eq!(python_float(1e-5), "1e-05");
    }
}
