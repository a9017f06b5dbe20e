//! What a request or the server may ask of the cache.
//!
//! A configuration arrives as a JSON object whose keys stand in the tables of [`keys`]. Parsing is
//! strict: an unknown key, a wrong type or an impossible value is a [`ConfigError`] naming the key.
//! Absent keys (and keys set to `null`) take the defaults of the tables. What depends on the request
//! (number of steps) or the model (number of blocks) is checked when the configuration becomes a
//! [`crate::CachePlan`].

mod cache_dit;
mod calibrator;
mod db_prune;
mod fields;
mod in_force;
mod key;
pub mod keys;
mod mag_cache;
mod quoted;
mod steps_mask;
mod tea_cache;

use serde_json::{Map, Value};

pub use cache_dit::{BlockLists, CacheDitConfig, ContinuousCounter, RefreshConfig};
pub use calibrator::{CalibratorConfig, CalibratorKind};
pub use db_prune::{DynamicThreshold, PruneConfig};
pub use mag_cache::MagCacheConfig;
use quoted::quoted;
pub use steps_mask::{MaskMode, StepsMask};
pub use tea_cache::{TEA_CACHE_COEFFICIENTS, TeaCacheConfig};

/// Which caching method a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheBackend {
    /// Every block of every step is computed.
    None,
    /// DBCache or DBPrune with optional calibrators and step masks.
    CacheDit,
    /// TeaCache.
    TeaCache,
    /// MagCache.
    MagCache,
}

impl CacheBackend {
    /// Every backend, in the order they are listed in messages.
    pub const ALL: [Self; 4] = [Self::None, Self::CacheDit, Self::TeaCache, Self::MagCache];

    /// The name used in requests, flags and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CacheDit => "cache_dit",
            Self::TeaCache => "tea_cache",
            Self::MagCache => "mag_cache",
        }
    }
}

impl std::fmt::Display for CacheBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for CacheBackend {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|backend| backend.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|backend| backend.as_str()).collect();
            let message = format!("unknown cache backend `{}`; known: {}", quoted(name), known.join(", "));
            ConfigError { key: None, message }
        })
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The key at fault, if it is a single one.
    pub key: Option<String>,
    /// What was wrong, what was found and what would be right.
    pub message: String,
}

impl ConfigError {
    /// A client may have chosen the key itself, so no more of it is named than a message shows.
    pub(crate) fn at(key: &str, message: impl Into<String>) -> Self {
        Self { key: Some(quoted(key)), message: message.into() }
    }
}

/// A parsed configuration of one backend.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheConfig {
    /// No caching.
    None,
    /// DBCache or DBPrune.
    CacheDit(CacheDitConfig),
    /// TeaCache.
    TeaCache(TeaCacheConfig),
    /// MagCache.
    MagCache(MagCacheConfig),
}

/// Keys that a request has from its server and did not ask for: where they do not fit its number of steps, they
/// are left out instead of refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inherited {
    /// All that gives a steps mask.
    pub steps_mask: bool,
    /// The key that repeats the number of steps.
    pub num_inference_steps: bool,
}

/// Keys that give the same thing in different ways: one of them replaces the others. Keys of one
/// inner list go together.
const ALTERNATIVES: [&[&[&str]]; 2] = [&keys::MASK_SOURCES, &keys::CALIBRATORS];

impl CacheConfig {
    /// Parses `keys` for `backend`.
    ///
    /// # Errors
    /// [`ConfigError`] for the first unknown key, wrong type or impossible value.
    pub fn parse(backend: CacheBackend, keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        match backend {
            CacheBackend::CacheDit => CacheDitConfig::parse(keys).map(Self::CacheDit),
            CacheBackend::TeaCache => TeaCacheConfig::parse(keys).map(Self::TeaCache),
            CacheBackend::MagCache => MagCacheConfig::parse(keys).map(Self::MagCache),
            CacheBackend::None => match keys.keys().next() {
                None => Ok(Self::None),
                Some(key) => {
                    let message = format!("`{}` has no effect: the cache backend is `none`", quoted(key));
                    Err(ConfigError::at(key, message))
                }
            },
        }
    }

    /// The backend this configuration belongs to.
    pub fn backend(&self) -> CacheBackend {
        match self {
            Self::None => CacheBackend::None,
            Self::CacheDit(_) => CacheBackend::CacheDit,
            Self::TeaCache(_) => CacheBackend::TeaCache,
            Self::MagCache(_) => CacheBackend::MagCache,
        }
    }

    /// The same, of which a request gave only the keys of `own` itself; the rest is its server's.
    #[must_use]
    pub fn inherited_but(mut self, own: &Map<String, Value>) -> Self {
        let gives = |key: &&str| own.get(*key).is_some_and(|value| !value.is_null());
        let inherited = Inherited {
            steps_mask: !keys::MASK_SOURCES.iter().flat_map(|keys| *keys).any(gives),
            num_inference_steps: !gives(&"num_inference_steps"),
        };
        match &mut self {
            Self::CacheDit(config) => config.inherited = inherited,
            Self::MagCache(config) => config.inherited = inherited,
            Self::None | Self::TeaCache(_) => {}
        }
        self
    }

    /// Whether `keys` are all that a response shows of such a configuration: then they say everything by themselves, and a
    /// `null` among them is the default.
    pub fn is_whole(backend: CacheBackend, keys: &Map<String, Value>) -> bool {
        let shown = keys::of(backend).iter().filter(|key| key.scope != keys::Scope::DbPrune);
        !keys.is_empty() && shown.into_iter().all(|key| keys.contains_key(key.name))
    }

    /// The keys of `base` with those of `over` on top. `null` leaves the base's value; where several
    /// keys are alternatives to each other, one in `over` replaces all in `base`.
    pub fn merge(base: &Map<String, Value>, over: &Map<String, Value>) -> Map<String, Value> {
        let mut merged = base.clone();
        let sets = |key: &&str| over.get(*key).is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
        for alternatives in ALTERNATIVES {
            let Some(chosen) = alternatives.iter().find(|keys| keys.iter().any(sets)) else { continue };
            for key in alternatives.iter().filter(|keys| *keys != chosen).flat_map(|keys| *keys) {
                merged.remove(*key);
            }
        }
        for (key, value) in over {
            // A key the base does not set is kept even as null: if it is unknown, parsing says so.
            if !value.is_null() || !merged.contains_key(key) {
                merged.insert(key.clone(), value.clone());
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(base: Value, over: Value) -> Value {
        Value::Object(CacheConfig::merge(base.as_object().unwrap(), over.as_object().unwrap()))
    }

    #[test]
    fn keys_replace_those_of_the_same_name() {
        assert_eq!(
            merged(json!({"a": 1, "b": 2}), json!({"b": 3, "a": null, "c": null})),
            json!({"a": 1, "b": 3, "c": null})
        );
    }

    #[test]
    fn alternatives_replace_each_other() {
        let policy = json!({"scm_steps_mask_policy": "fast", "enable_taylorseer": true, "taylorseer_order": 2});
        assert_eq!(
            merged(policy.clone(), json!({"steps_computation_mask": [1, 0], "enable_foca": true})),
            json!({"taylorseer_order": 2, "steps_computation_mask": [1, 0], "enable_foca": true})
        );
        let off = merged(policy, json!({"scm_steps_mask_policy": null, "enable_foca": false}));
        assert_eq!((&off["scm_steps_mask_policy"], &off["enable_taylorseer"]), (&json!("fast"), &json!(true)));
    }

    #[test]
    fn backends_are_known_by_their_names() {
        for backend in CacheBackend::ALL {
            assert_eq!(backend.as_str().parse::<CacheBackend>().unwrap(), backend);
        }
        assert!("teacache".parse::<CacheBackend>().unwrap_err().message.contains("tea_cache"));
    }

    #[test]
    fn names_that_a_client_chooses_are_cut() {
        let name = "x".repeat(1000);
        let keys = Map::from_iter([(name.clone(), json!(1))]);
        for backend in CacheBackend::ALL {
            let ConfigError { key, message } = CacheConfig::parse(backend, &keys).unwrap_err();
            assert!(key.is_some_and(|key| key.len() < 90) && !message.contains(&name[..81]), "{message}");
        }
        assert!(!name.parse::<CacheBackend>().unwrap_err().message.contains(&name[..81]));
    }
}
