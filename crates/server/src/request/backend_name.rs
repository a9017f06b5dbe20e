//! What requests and flags call a cache backend: one of the caching methods, or `auto`, which stands for whichever setting was
//! measured to be the fastest.

use std::fmt;
use std::str::FromStr;

use afterimage_cache::CacheBackend;

use super::fields::quoted;

/// A backend by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendName {
    /// A caching method, or none.
    Method(CacheBackend),
    /// The fastest setting of the model's profile that holds a floor.
    Auto,
}

impl BackendName {
    /// Every name, in the order they are listed in messages.
    pub(crate) const ALL: [Self; 5] = [
        Self::Method(CacheBackend::None),
        Self::Method(CacheBackend::CacheDit),
        Self::Method(CacheBackend::TeaCache),
        Self::Method(CacheBackend::MagCache),
        Self::Auto,
    ];

    /// No caching.
    pub(crate) const NONE: Self = Self::Method(CacheBackend::None);

    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method(backend) => backend.as_str(),
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The message says what would be right.
impl FromStr for BackendName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
            format!("unknown cache backend `{}`; known: {}", quoted(name), Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_name() {
        for backend in CacheBackend::ALL {
            assert_eq!(backend.as_str().parse(), Ok(BackendName::Method(backend)));
        }
        assert_eq!("auto".parse(), Ok(BackendName::Auto));
        assert!("Auto".parse::<BackendName>().unwrap_err().ends_with("mag_cache, auto"));
        assert_eq!(BackendName::ALL.len(), CacheBackend::ALL.len() + 1);
    }
}
