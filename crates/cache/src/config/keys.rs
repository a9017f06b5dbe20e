//! Every key of a `cache_config`, a table for each backend.
//!
//! What else is said of the keys is made from these rows: parsing ([`super::CacheConfig::parse`]) takes types,
//! ranges and defaults from them, a configuration in force the defaults, and the server its JSON schema, the tables
//! of `docs/caching.md` and the controls of the playground. A new key is a row here, and a field that is read from it
//! and shown again in the configuration of its backend. Rows stand in the order of the documentation.
//!
//! Names are vLLM-Omni's, and cache-dit's where vLLM-Omni has none; defaults are vLLM-Omni's.

pub use super::key::{Key, Length, Range, Scope, Values};
use super::{CacheBackend, TEA_CACHE_COEFFICIENTS};

const OFF: Values = Values::Flag { default: Some(false) };
const ON: Values = Values::Flag { default: Some(true) };
/// A number of any size, without a default.
const NUMBER: Values = Values::Number { range: Range::Any, default: None };
/// A number of steps or forwards, without a default.
const AT_LEAST_ONE: Values = Values::Count { least: 1, most: None, default: None };
/// The most entries of a list: no run has more steps than the timesteps that models are trained on, and no model as many
/// blocks. A request can use fewer still, which its plan knows.
pub const MAX_LIST_LENGTH: usize = 1000;
/// A list with at least one entry.
const SOME: Length = Length { least: 1, most: MAX_LIST_LENGTH };
/// Highest TaylorSeer order; every order costs one more copy of the residual.
const MAX_TAYLORSEER_ORDER: i64 = 4;

/// The keys of backend `cache_dit`.
pub const CACHE_DIT: [Key; 31] = [
    Key::new(
        "cache_type",
        choice(&["DBCache", "DBPrune"], "DBCache"),
        "The method: `DBCache` reuses the middle blocks of a step, `DBPrune` single blocks",
    ),
    Key::new("Fn_compute_blocks", count(1, 1), "The first blocks, always computed"),
    Key::new("Bn_compute_blocks", count(0, 0), "The last blocks, always computed"),
    Key::new(
        "residual_diff_threshold",
        number(Range::Any, 0.24),
        "A step is reused below this distance; 0 or less: never, 1 or more: always",
    ),
    Key::new("max_warmup_steps", count(0, 4), "Number of warm-up steps at the start"),
    Key::new("warmup_interval", count(1, 1), "Of the warm-up steps, every n-th is computed"),
    Key::new("max_cached_steps", limit(-1), "The most steps that may be reused; -1: no limit"),
    Key::new("max_continuous_cached_steps", limit(3), "The most steps in a row that may be reused; -1: no limit"),
    Key::new(
        "continuous_counter",
        choice(&["1.5.3", "legacy"], "1.5.3"),
        "How a row is counted: as cache-dit 1.5.3 does, or, with `legacy`, as cache-dit 1.5.0 to 1.5.2 do, which \
         vLLM-Omni 0.30 and SGLang 0.5.23 run",
    )
    .of(Scope::DbCache),
    Key::new(
        "block_lists",
        choice(&["joined", "separate"], "joined"),
        "How a model with several block lists (FLUX) is looked at: as one list, as cache-dit does, or `separate`: each \
         with a context, first and last blocks of its own, as in vLLM-Omni",
    ),
    Key::new(
        "max_accumulated_residual_diff_threshold",
        NUMBER,
        "Nothing is reused any more once the recorded distances add up to this",
    )
    .of(Scope::DbCache),
    Key::new("enable_taylorseer", OFF, "Predict by a Taylor expansion instead of repeating").of(Scope::TaylorSeer),
    Key::new(
        "taylorseer_order",
        Values::Count { least: 1, most: Some(MAX_TAYLORSEER_ORDER), default: Some(1) },
        "Order of the Taylor expansion",
    )
    .of(Scope::TaylorSeer),
    Key::new("enable_foca", OFF, "Predict by forecasting and calibrating instead of repeating").of(Scope::FoCa),
    Key::new("enable_encoder_calibrator", ON, "Predict the text stream too").of(Scope::Calibrators),
    Key::new(
        "calibrator_cache_type",
        choice(&["residual", "hidden_states"], "residual"),
        "What is predicted: what the blocks add, or, with `hidden_states`, their outputs",
    )
    .of(Scope::Calibrators),
    Key::new(
        "scm_steps_mask_policy",
        Values::Choice { names: &["slow", "medium", "fast", "ultra"], default: None },
        "Steps that must be computed, fixed beforehand by a policy",
    ),
    Key::new(
        "scm_compute_bins",
        Values::Counts { least: 1, most: None, length: SOME },
        "Own lengths of the computed runs; goes with `scm_cache_bins`, and both add up to the steps",
    ),
    Key::new(
        "scm_cache_bins",
        Values::Counts { least: 1, most: None, length: SOME },
        "Own lengths of the runs that may be reused; goes with `scm_compute_bins`",
    ),
    Key::new(
        "steps_computation_mask",
        Values::Counts { least: 0, most: Some(1), length: SOME },
        "The mask itself, with an entry for each step: 1 is computed",
    ),
    Key::new(
        "scm_steps_policy",
        choice(&["dynamic", "static"], "dynamic"),
        "`static` reuses every step that the mask does not force, without comparing",
    ),
    Key::new(
        "force_refresh_step_hint",
        AT_LEAST_ONE,
        "Drop all state after so many forwards; a scheduler's second ones in a step are not counted",
    ),
    Key::new(
        "force_refresh_step_policy",
        choice(&["once", "repeat"], "once"),
        "`repeat` drops the state every so many forwards",
    ),
    Key::new("num_inference_steps", AT_LEAST_ONE, "Must equal the request's, if given"),
    Key::new(
        "enable_separate_cfg",
        Values::Flag { default: None },
        "For models that run cond and uncond as two forwards",
    )
    .absent("as the model does"),
    Key::new("cfg_compute_first", OFF, "Of two forwards, the unconditional one comes first"),
    Key::new("cfg_diff_compute_separate", ON, "Of two forwards, each measures its own distance"),
    Key::new(
        "enable_dynamic_prune_threshold",
        OFF,
        "Raise the threshold to what the first distances of a step suggest",
    )
    .of(Scope::DbPrune),
    Key::new("max_dynamic_prune_threshold", NUMBER, "The most that the threshold is raised to")
        .absent("twice the threshold")
        .of(Scope::DbPrune),
    Key::new(
        "dynamic_prune_threshold_relax_ratio",
        number(Range::Any, 1.25),
        "The threshold is raised to the mean of the first distances times this",
    )
    .of(Scope::DbPrune),
    Key::new(
        "non_prune_block_ids",
        Values::Counts { least: 0, most: None, length: Length { least: 0, most: MAX_LIST_LENGTH } },
        "Blocks that are always computed",
    )
    .of(Scope::DbPrune),
];

/// The keys of backend `tea_cache`.
pub const TEA_CACHE: [Key; 4] = [
    Key::new("rel_l1_thresh", number(Range::Above(0.0), 0.2), "Reuse while the accumulated change is below this"),
    Key::new(
        "coefficients",
        Values::Numbers {
            range: Range::Any,
            length: Length { least: TEA_CACHE_COEFFICIENTS, most: TEA_CACHE_COEFFICIENTS },
        },
        "Five numbers, highest degree first: from input change to output change",
    )
    .absent("the model's"),
    Key::new("num_warmup_steps", count(0, 0), "The first steps, computed"),
    Key::new("force_last_step", OFF, "The last step is computed"),
];

/// The keys of backend `mag_cache`.
pub const MAG_CACHE: [Key; 5] = [
    Key::new("mag_threshold", number(Range::AtLeast(0.0), 0.24), "Reuse while the accumulated error is at most this"),
    Key::new("mag_max_skip_steps", count(0, 5), "The most steps in a row that may be reused"),
    Key::new(
        "mag_retention_ratio",
        number(Range::Within(0.0, 1.0), 0.1),
        "This share of the steps, from the start, is computed",
    ),
    Key::new(
        "mag_ratios",
        Values::Numbers { range: Range::Above(0.0), length: SOME },
        "Magnitude ratio of every step of a calibration run, interpolated for the request's steps",
    )
    .absent("the model's"),
    Key::new("num_inference_steps", AT_LEAST_ONE, "Must equal the request's, if given"),
];

/// The ways to give a steps mask: one replaces the others. Keys of one inner list go together.
pub const MASK_SOURCES: [&[&str]; 3] =
    [&["scm_steps_mask_policy"], &["scm_compute_bins", "scm_cache_bins"], &["steps_computation_mask"]];

/// The ways to switch a calibrator on: one replaces the others.
pub const CALIBRATORS: [&[&str]; 2] = [&["enable_taylorseer"], &["enable_foca"]];

/// The table of `backend`.
pub fn of(backend: CacheBackend) -> &'static [Key] {
    match backend {
        CacheBackend::None => &[],
        CacheBackend::CacheDit => &CACHE_DIT,
        CacheBackend::TeaCache => &TEA_CACHE,
        CacheBackend::MagCache => &MAG_CACHE,
    }
}

const fn count(least: i64, default: i64) -> Values {
    Values::Count { least, most: None, default: Some(default) }
}

const fn limit(default: i64) -> Values {
    Values::Limit { default }
}

const fn number(range: Range, default: f64) -> Values {
    Values::Number { range, default: Some(default) }
}

const fn choice(names: &'static [&'static str], default: &'static str) -> Values {
    Values::Choice { names, default: Some(default) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::plan::ModelFacts;
    use crate::{CacheConfig, CachePlan};

    /// What a response says of a request that gives these keys.
    fn in_force(backend: CacheBackend, keys: Value) -> Map<String, Value> {
        let config = CacheConfig::parse(backend, keys.as_object().unwrap()).unwrap();
        let facts = ModelFacts {
            blocks: &[8],
            tea_cache_coefficients: Some([1.0; TEA_CACHE_COEFFICIENTS]),
            mag_ratios: Some(&[1.0]),
            ..ModelFacts::default()
        };
        CachePlan::new(&config, 28, facts).unwrap().effective_config()
    }

    #[test]
    fn names_are_used_once_and_defaults_can_be_given() {
        for backend in CacheBackend::ALL {
            let table = of(backend);
            for (index, key) in table.iter().enumerate() {
                assert!(table[..index].iter().all(|other| other.name != key.name), "{}", key.name);
                let default = key.default();
                assert!(default.is_null() || key.check(&default).is_ok(), "{} cannot be {default}", key.name);
                assert!(default.is_null() || key.absent.is_none(), "{} is two things by default", key.name);
            }
        }
    }

    #[test]
    fn every_name_of_a_choice_is_understood() {
        for backend in CacheBackend::ALL {
            for key in of(backend) {
                let Values::Choice { names, .. } = key.values else { continue };
                for name in names {
                    let keys = Map::from_iter([(key.name.to_owned(), Value::from(*name))]);
                    assert!(CacheConfig::parse(backend, &keys).is_ok(), "{}: {name}", key.name);
                }
            }
        }
    }

    #[test]
    fn a_list_is_bounded_before_anything_is_done_with_it() {
        for backend in CacheBackend::ALL {
            for key in of(backend) {
                let (Values::Counts { length, .. } | Values::Numbers { length, .. }) = key.values else { continue };
                let longer = Value::from(vec![1; length.most + 1]);
                let error = key.check(&longer).unwrap_err();
                assert_eq!(error.key.as_deref(), Some(key.name));
                assert!(length.most <= MAX_LIST_LENGTH && error.message.len() < 100, "{error}");
            }
        }
    }

    #[test]
    fn alternatives_are_keys() {
        for name in MASK_SOURCES.iter().chain(&CALIBRATORS).flat_map(|names| *names) {
            assert!(CACHE_DIT.iter().any(|key| key.name == *name), "{name}");
        }
    }

    #[test]
    fn a_configuration_in_force_has_every_key_and_the_defaults() {
        for (backend, keys) in [
            (CacheBackend::CacheDit, json!({"cache_type": "DBPrune", "enable_taylorseer": true})),
            (CacheBackend::TeaCache, json!({})),
            (CacheBackend::MagCache, json!({})),
        ] {
            let shown = in_force(backend, keys.clone());
            assert_eq!(shown.len(), of(backend).len());
            for key in of(backend).iter().filter(|key| keys.get(key.name).is_none()) {
                let value = shown.get(key.name).unwrap_or_else(|| panic!("{} is not shown", key.name));
                assert!(key.default().is_null() || *value == key.default(), "{} is {value}", key.name);
            }
        }
    }
}
