//! What is compared: ways to cache.

use afterimage_cache::{CacheBackend, CacheConfig, ConfigError};
use serde::Serialize;
use serde_json::{Map, Value};

/// A way to cache, under a name.
#[derive(Debug, Clone)]
pub struct Setting {
    /// For people.
    pub name: String,
    /// As a request has it.
    pub cache: CacheConfig,
    /// What others measured with it, on their model and device.
    pub published: Option<Published>,
}

/// Figures of others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// Times faster than uncached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
    /// Steps reused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_steps: Option<usize>,
}

impl Setting {
    /// A setting with the keys of a request's `cache_config`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn parse(
        name: impl Into<String>,
        backend: CacheBackend,
        keys: &Map<String, Value>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { name: name.into(), cache: CacheConfig::parse(backend, keys)?, published: None })
    }

    /// The name of what every other setting is compared with.
    pub const UNCACHED: &'static str = "uncached";

    pub(crate) fn uncached() -> Self {
        Self { name: Self::UNCACHED.to_owned(), cache: CacheConfig::None, published: None }
    }
}
