//! What a request or the server may ask of the cache.
//!
//! A configuration arrives as a JSON object whose keys are vLLM-Omni's, and cache-dit's where
//! vLLM-Omni has none. Parsing is strict: an unknown key, a wrong type or an impossible value is a
//! [`ConfigError`] naming the key. Absent keys (and keys set to `null`) take vLLM-Omni's defaults.
//! What depends on the request (number of steps) or the model (number of blocks) is checked when
//! the configuration becomes a [`crate::CachePlan`].

mod cache_dit;
mod fields;

use serde_json::{Map, Value};

pub use cache_dit::{CacheDitConfig, CalibratorConfig, CalibratorKind, ContinuousCounter, MaskMode, StepsMask};

/// Which caching method a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheBackend {
    /// Every block of every step is computed.
    None,
    /// DBCache with optional calibrators and step masks.
    CacheDit,
}

impl CacheBackend {
    /// Every backend, in the order they are listed in messages.
    pub const ALL: [Self; 2] = [Self::None, Self::CacheDit];

    /// The name used in requests, flags and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CacheDit => "cache_dit",
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
            ConfigError { key: None, message: format!("unknown cache backend `{name}`; known: {}", known.join(", ")) }
        })
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The key at fault, if it is one key's.
    pub key: Option<String>,
    /// What was wrong, what was found and what would be right.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn at(key: &str, message: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), message: message.into() }
    }
}

/// A parsed configuration of one backend.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheConfig {
    /// No caching.
    None,
    /// DBCache.
    CacheDit(CacheDitConfig),
}

impl CacheConfig {
    /// Parses `keys` for `backend`.
    ///
    /// # Errors
    /// [`ConfigError`] for the first unknown key, wrong type or impossible value.
    pub fn parse(backend: CacheBackend, keys: &Map<String, Value>) -> Result<Self, ConfigError> {
        match backend {
            CacheBackend::CacheDit => CacheDitConfig::parse(keys).map(Self::CacheDit),
            CacheBackend::None => match keys.keys().next() {
                None => Ok(Self::None),
                Some(key) => Err(ConfigError::at(key, format!("`{key}` has no effect: the cache backend is `none`"))),
            },
        }
    }

    /// The backend this configuration belongs to.
    pub fn backend(&self) -> CacheBackend {
        match self {
            Self::None => CacheBackend::None,
            Self::CacheDit(_) => CacheBackend::CacheDit,
        }
    }
}
