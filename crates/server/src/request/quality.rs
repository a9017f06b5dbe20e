//! OpenAI's `quality`, as what it can mean here: how many steps are made, and how many of them are
//! only predicted by the cache.
//!
//! Where the cache is chosen by what was measured (`cache_backend: "auto"`), `quality` is how alike the pictures have to be
//! to the uncached ones, and changes nothing else. Everywhere else it is a preset:
//! `auto` and `standard` are the server's own settings: older clients send `standard` with every request, and that must
//! not undo what an operator has set up. A preset takes the place of the server's defaults for steps and cache; whatever a request says
//! itself wins over it. The presets fit every model: steps are a share of the model's own default, and
//! DBCache needs nothing that must be measured first. `docs/caching.md` has what they cost and bring.

use afterimage_cache::{CacheBackend, ConfigError};
use afterimage_study::profile::Floor;
use serde_json::{Map, Value, json};

use super::backend_name::BackendName;
use super::cache_defaults::{CacheDefaults, DEFAULT_FLOOR};

/// Differences are seen, side by side.
const LOW_FLOOR: Floor = Floor::of_psnr(25.0);
/// Differences are looked for in vain.
const HIGH_FLOOR: Floor = Floor::of_psnr(35.0);

/// How much work a request is worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Quality {
    /// The server's own settings.
    #[default]
    Auto,
    /// Half the steps, and most of them predicted.
    Low,
    /// Half the steps, and those predicted that hardly differ.
    Medium,
    /// All steps, computed in full.
    High,
}

impl Quality {
    /// Every name a request may use; `standard` and `hd` are those of older models.
    pub(crate) const CHOICES: [(&str, Self); 6] = [
        ("auto", Self::Auto),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("standard", Self::Auto),
        ("hd", Self::High),
    ];

    /// The name in a response.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// Steps of a request that names none, if the preset sets them.
    pub(crate) fn steps(self, model_default: usize) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Low | Self::Medium => Some(model_default.div_ceil(2)),
            Self::High => Some(model_default),
        }
    }

    /// The likeness that is held where the cache is chosen by what was measured, if this says any.
    pub(crate) fn floor(self) -> Option<Floor> {
        match self {
            Self::Auto => None,
            Self::Low => Some(LOW_FLOOR),
            Self::Medium => Some(DEFAULT_FLOOR),
            Self::High => Some(HIGH_FLOOR),
        }
    }

    /// What replaces the server's cache settings, if the preset sets a cache.
    pub(crate) fn cache(self) -> Result<Option<CacheDefaults>, ConfigError> {
        let cache_dit = |keys: Value| match keys {
            Value::Object(keys) => CacheDefaults::new(BackendName::Method(CacheBackend::CacheDit), keys).map(Some),
            _ => Ok(None),
        };
        let cache = match self {
            Self::Auto => Ok(None),
            Self::Low => cache_dit(json!({"residual_diff_threshold": 0.24, "enable_taylorseer": true})),
            Self::Medium => cache_dit(json!({"residual_diff_threshold": 0.12, "enable_taylorseer": true})),
            Self::High => CacheDefaults::new(BackendName::NONE, Map::new()).map(Some),
        };
        Ok(cache?.map(|cache| cache.of_quality(self.as_str())))
    }
}
